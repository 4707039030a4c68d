"""What all suites of ``dualmask eval`` share: their options, lists of numbers, and the outside judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from dualmask.evaluation.judge import Judge
    from dualmask.inference.loading import Loaded

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Unplotted:
    """Which model, on what data, and where the figures go."""

    model: Annotated[Path, typer.Option(metavar="DIR", help="Exported folder, or a run's folder.", show_default=False)]
    data: Annotated[Path, typer.Option(metavar="F", help='jsonl, a {"text": …} a line.', show_default=False)]
    json_out: Annotated[Path | None, typer.Option("--json", help="Result file to write.", show_default=False)] = None
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto"

    def write(self, suite: str, rows: Sequence[dict[str, Any]], **about: Any) -> None:
        """The result file, if one is asked for."""
        from dualmask.evaluation import report

        if self.json_out:
            report.write(self.json_out, suite, rows, model=str(self.model), data=str(self.data), **about)


@dataclass(frozen=True)
class Measured(Unplotted):
    """The same, of a suite that has a plot."""

    plot: Annotated[Path | None, typer.Option(help="PNG to draw.", show_default=False)] = None


def numbers(
    option: str, text: str, kind: Callable[[str], Number], right: Callable[[Number], bool], meaning: str
) -> list[Number]:
    """``1,2,3`` as numbers. Raises ValueError, which says that ``option`` wants ``meaning``."""
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(right(value) for value in values):
        raise ValueError(f"{option} {text}: give {meaning}")
    return values


def load_judge(scorer: Path | None, loaded: Loaded[Any], measured: Measured) -> Judge | None:
    """The outside judge of what ``loaded`` writes; None without a ``--scorer``. Raises ValueError."""
    from dualmask.evaluation.judge import Judge
    from dualmask.inference.loading import load

    if scorer is None:
        return None
    judging = load(scorer, measured.device, family="autoregressive")
    require_alike(loaded, judging, f"--scorer {scorer}", measured)
    return Judge(judging.model, judging.tokenizer, judging.config.max_length)


def require_alike(loaded: Loaded[Any], other: Loaded[Any], option: str, measured: Measured) -> None:
    """Texts travel between the models as ids, and each must read a whole one."""
    if other.tokenizer.digest != loaded.tokenizer.digest:
        raise ValueError(f"{option}: another tokenizer than {measured.model}; train both on the same data")
    if other.config.max_length < loaded.config.max_length:
        lengths = f"it reads {other.config.max_length} tokens, {measured.model} {loaded.config.max_length}"
        raise ValueError(f"{option}: {lengths}; train both with the same model.max_length")
