"""Options of the commands of DualMaskLM: dataclasses whose fields become options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class Writing:
    """How long a text is worked on."""

    rounds: Annotated[int, typer.Option(help="Most rounds; fewer are used when nothing is left to do.")] = 8
    anywhere: Annotated[bool, typer.Option(help="Write wherever something is missing, not only behind TEXT.")] = False


@dataclass(frozen=True)
class Growth:
    """How much longer the text becomes."""

    growth: Annotated[
        int | None,
        typer.Option(help="Tokens to add in all. Default: as many as the model sees missing."),
    ] = None
    max_growth: Annotated[int | None, typer.Option(help="Without --growth: add at most so many.")] = None
    growth_schedule: Annotated[
        str, typer.Option(help="linear: as many in each round; cosine: few in the first rounds.")
    ] = "linear"


@dataclass(frozen=True)
class Stops:
    """What ends the rounds before the last one, beside having nothing to do."""

    stop_confidence: Annotated[
        float | None,
        typer.Option(metavar="P", help="Stop once the words just written are this probable, 0 to 1."),
    ] = None
    stop_distance: Annotated[
        float | None,
        typer.Option(metavar="D", help="Stop once a round changes less than this share of the text, 0 to 1."),
    ] = None


@dataclass(frozen=True)
class Locks:
    """What must stay as it is."""

    lock: Annotated[
        list[str] | None, typer.Option(metavar="WORDS", help="Words that stay, wherever they occur; repeatable.")
    ] = None
    lock_span: Annotated[
        list[str] | None, typer.Option(metavar="A:B", help="Characters A to B (not included) stay; repeatable.")
    ] = None


@dataclass(frozen=True)
class Sureness:
    """How sure the model must be before it changes something. What is not given the model's own decision.json says."""

    edit_threshold: Annotated[
        float | None, typer.Option(metavar="P", help="How sure the model must be that a token is wrong, 0 to 1.")
    ] = None
    insert_threshold: Annotated[
        float | None, typer.Option(metavar="P", help="How sure it must be that something is missing, 0 to 1.")
    ] = None
    fill_threshold: Annotated[
        float | None, typer.Option(metavar="P", help="How probable all that an edit writes must be, 0 to 1.")
    ] = None
    spelling_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="P", help="How sure it must be that an unknown word is misspelt before known ones are tried."
        ),
    ] = None
    wording_threshold: Annotated[
        float | None,
        typer.Option(metavar="P", help="How probable another form of a known word must be for it to be written."),
    ] = None
    preference: Annotated[
        float | None,
        typer.Option(metavar="NATS", help="By how much it must find an edit better than what stood there."),
    ] = None
    precision: Annotated[
        float | None,
        typer.Option(metavar="P", help="Instead: the most edits of which this share was right on held-out texts."),
    ] = None

    def __post_init__(self) -> None:
        if self.precision is not None and self.given:
            raise ValueError(f"precision {self.precision} chooses the thresholds: leave {next(iter(self.given))} out")

    @property
    def given(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if name != "precision" and value is not None}


@dataclass(frozen=True)
class Care:
    """What a correction leaves alone."""

    protect: Annotated[
        bool | None,
        typer.Option(
            "--protect/--no-protect",
            help="Leave addresses, code, names such as os.path, numbers, other scripts and symbols as they are. "
            "Default: in auto, and in edit without --keep-rate.",
            show_default=False,
        ),
    ] = None
    marks_apart: Annotated[
        bool | None,
        typer.Option(
            "--marks-apart/--no-marks-apart",
            help="In a text that is mended, commas and full stops stand apart from the words (`I like it .`) and stay "
            "so. Default: where all of several do.",
            show_default=False,
        ),
    ] = None


GENERATE = (Writing, Growth, Stops, Locks)
