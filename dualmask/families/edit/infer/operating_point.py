"""How sure a model must be before it changes a text: its own thresholds, and the curve of what others would give.

They are chosen on held-out texts when a run ends (``evaluate/calibrate.py``) and lie beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from dualmask.core.checks import check

FILE = "decision.json"
FORMAT = 1


@dataclass(frozen=True)
class OperatingPoint:
    """Raises ValueError.

    gate_threshold    auto: a round edits if the Gate's probability for that is above this (seed 000: τ_edit)
    edit_threshold    how sure the model must be that a token is wrong. 0.5: a hole in its place is more likely to be
                      filled rightly than the token is to be right; above: fewer tokens are deleted
    insert_threshold  the same of a token that is missing, where nothing was deleted
    fill_threshold    least probability of all words that an edit writes together; else it is not made
    spelling_threshold
                      how sure the model must be that an unknown word is wrong before the known words near it are tried
                      (``infer/spelling.py``); 1: they never are
    wording_threshold how probable another form or companion of a known word must be, against the word itself, for it to
                      be written instead (``infer/wording.py``), and likewise the other order of two; 1: it never is
    preference        nats by which the filler must find the words more probable that an edit leads to than those that
                      stood there, neighbours included; None: it is not asked
    """

    gate_threshold: float = 0.5
    edit_threshold: float = 0.5
    insert_threshold: float = 0.5
    fill_threshold: float = 0.0
    spelling_threshold: float = 1.0
    wording_threshold: float = 1.0
    preference: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "preference":
                check(0 <= value <= 1, name.replace("_", " "), value, "a probability, 0 … 1")
        finite = self.preference is None or abs(self.preference) < float("inf")
        check(finite, "preference", self.preference, "nats, for instance 0, or leave it out")


@dataclass(frozen=True)
class Measured:
    """A point and what it gave on the texts that the thresholds were chosen on."""

    point: OperatingPoint
    precision: float
    recall: float
    f05: float
    clean_untouched: float


@dataclass(frozen=True)
class Decision:
    """The content of decision.json. curve: points none of which is worse than another in precision and recall both, the
    most precise first."""

    chosen: OperatingPoint = OperatingPoint()
    curve: tuple[Measured, ...] = field(default=())

    def at_precision(self, least: float) -> OperatingPoint:
        """The point of the curve that finds most at this precision or a better one. Raises ValueError."""
        if not self.curve:
            raise ValueError(f"precision {least}: this model has no curve (decision.json); leave --precision out")
        good = [each for each in self.curve if each.precision >= least]
        if not good:
            best = max(each.precision for each in self.curve)
            raise ValueError(f"precision {least} is out of this model's reach: give at most {best:.3f}")
        return max(good, key=lambda each: each.recall).point

    @property
    def text(self) -> str:
        """The file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def read(cls, folder: Path) -> Decision:
        """That of a model folder; without a file the thresholds of nobody. Raises ValueError."""
        path = folder / FILE
        if not path.is_file():
            return cls()
        try:
            tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if tree["format"] != FORMAT:
                raise ValueError(f"format {tree['format']!r}, this version reads {FORMAT}")
            curve = [Measured(**{**each, "point": OperatingPoint(**each["point"])}) for each in tree["curve"]]
            return cls(OperatingPoint(**tree["chosen"]), tuple(curve))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be read ({error}): export the model again") from None


def given(folder: Path, values: Mapping[str, Any]) -> str:
    """The file of a model folder with some thresholds by name in place of the chosen ones. Raises ValueError."""
    known = [each.name for each in fields(OperatingPoint)]
    for name, value in values.items():
        check(name in known, "threshold", name, f"one of {', '.join(known)}")
        check(value is not None or name == "preference", name, "none", "a probability, 0 … 1")
    decision = Decision.read(folder)
    return replace(decision, chosen=replace(decision.chosen, **values)).text
