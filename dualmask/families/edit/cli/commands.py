"""``dualmask edit | auto | summarize | infill``, and `generate` with a DualMaskLM: text in, text out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualmask.core.sampling import SamplingParams
from dualmask.families.edit.cli.options import Care, Growth, Locks, Stops, Sureness, Writing
from dualmask.families.edit.infer.operating_point import Decision, OperatingPoint
from dualmask.families.edit.infer.request import HOLE_MARK, Mode, TextRequest
from dualmask.inference.folder import open_folder
from dualmask.serving.options import Setup, Source, with_options
from dualmask.serving.results import PROGRESS_AFTER_SECONDS, check_page, show
from dualmask.serving.texts import for_each, read_texts

if TYPE_CHECKING:
    from dualmask.families.edit.infer.text import TextResult

app = typer.Typer()

TEXTS_AT_ONCE = 256

Rounds = Annotated[int, typer.Option(help="Most rounds; fewer are used when nothing is left to do.")]


@app.command()
@with_options
def edit(
    source: Source,
    setup: Setup,
    *,
    keep_rate: Annotated[
        float | None,
        typer.Option(help="Share of the tokens that is kept, 0 to 1. Default: all but those that look wrong."),
    ] = None,
    rounds: Rounds = 1,
    sureness: Sureness,
    growth: Growth,
    stops: Stops,
    locks: Locks,
    care: Care,
    sampling: SamplingParams,
) -> None:
    """Correct a text, or write a share of it anew.

    In each round tokens are deleted, masks are placed where something is missing, and all masks are filled. Deleted is
    what the model takes for wrong; with --keep-rate that share is kept, and what can best be restored goes too.
    Without --keep-rate addresses, code, names, numbers and other scripts stay (--no-protect lets them go).

    \b
    dualmask edit --model runs/quickstart "It can be be used to open the the file." --trace rounds.html
    dualmask edit --model M --keep-rate 0.9 --rounds 3 --lock "list of names" --file draft.txt
    cat drafts.txt | dualmask edit --model M --lines --json > edits.jsonl
    """
    options = {"keep_rate": keep_rate, "rounds": rounds} | sureness.given | vars(growth) | vars(stops)
    _run("edit", source, setup, sampling, options, locks, sureness.precision, **vars(care))


def generate(
    source: Source, setup: Setup, sampling: SamplingParams, writing: Writing, growth: Growth, stops: Stops, locks: Locks
) -> None:
    """``dualmask generate``: writes behind the text, or wherever it sees something missing, until it has grown."""
    _run("generate", source, setup, sampling, vars(writing) | vars(growth) | vars(stops), locks)


@app.command()
@with_options
def auto(
    source: Source,
    setup: Setup,
    *,
    gate_threshold: Annotated[
        float | None, typer.Option(metavar="P", help="A round edits if the Gate's probability for that is above this.")
    ] = None,
    rounds: Rounds = 8,
    sureness: Sureness,
    growth: Growth,
    stops: Stops,
    locks: Locks,
    care: Care,
    sampling: SamplingParams,
) -> None:
    """Let the model's Gate decide, round by round and text by text, what TEXT needs.

    Where the Gate says "edit", tokens that look wrong are deleted and the holes are filled, as in `edit`. Where it says
    "generate", nothing is deleted and only what looks missing is written. A text that needs neither stays as it is.
    --trace shows what was decided, and how surely. Addresses, code, names such as os.path, numbers, other scripts and
    line breaks stay as they are, and only plain words and marks are written (--no-protect lifts both).

    \b
    dualmask auto --model runs/quickstart "It can be be used to open the the file." --trace rounds.html
    dualmask auto --model M --growth 20 "Returns the"
    dualmask auto --model M --gate-threshold 0.8 --stop-distance 0.05 --lines --json --file drafts.txt
    """
    options = {"gate_threshold": gate_threshold, "rounds": rounds} | sureness.given | vars(growth) | vars(stops)
    _run("auto", source, setup, sampling, options, locks, sureness.precision, **vars(care))


@app.command()
@with_options
def summarize(
    source: Source,
    setup: Setup,
    *,
    keep_rate: Annotated[float, typer.Option(help="Share of the tokens that is kept, 0 to 1.")] = 0.5,
    rounds: Rounds = 1,
    locks: Locks,
    care: Care,
    sampling: SamplingParams,
) -> None:
    """Print the skeleton: TEXT without the tokens that can best be restored. Nothing is written.

    With several rounds the text shrinks to --keep-rate step by step.

    \b
    dualmask summarize --model M --keep-rate 0.4 --file article.txt
    """
    _run("summarize", source, setup, sampling, {"keep_rate": keep_rate, "rounds": rounds}, locks, **vars(care))


@app.command()
@with_options
def infill(
    source: Source,
    setup: Setup,
    *,
    hole: Annotated[str, typer.Option(help="The mark of a place to fill.")] = HOLE_MARK,
    tokens: Annotated[
        int | None,
        typer.Option(help="Tokens a hole. Default: as many as the model sees missing.", show_default=False),
    ] = None,
    rounds: Rounds = 1,
    stops: Stops,
    sampling: SamplingParams,
) -> None:
    """Write where TEXT has holes, and nowhere else.

    \b
    dualmask infill --model M "Returns the ___ of names." --tokens 3
    dualmask infill --model M "The {} of the house {}." --hole "{}" --temperature 0.8
    """
    _run("infill", source, setup, sampling, {"rounds": rounds} | vars(stops), Locks(), hole=hole, tokens=tokens)


def _run(
    mode: Mode,
    source: Source,
    setup: Setup,
    sampling: SamplingParams,
    options: dict[str, Any],
    locks: Locks,
    precision: float | None = None,
    **further: Any,
) -> None:
    """Checks everything that can be checked without the model, then runs it. Raises ValueError, OSError."""
    TextRequest("", mode, sampling=sampling, options=options)  # wrong options are named before a text is read
    check_page(setup)
    texts = read_texts(source, empty_allowed=mode == "generate")
    _check_locks(locks, texts)
    spans = [_span(text) for text in locks.lock_span or ()]
    requests = for_each(
        texts,
        source,
        lambda text: TextRequest(text, mode, locks.lock or (), spans, sampling=sampling, options=options, **further),
    )
    decision = Decision.read(open_folder(setup.model).path)  # before seconds are spent on starting torch
    point = decision.chosen if precision is None else decision.at_precision(precision)
    gate_threshold = options.get("gate_threshold")
    page = _page(point.gate_threshold if gate_threshold is None else gate_threshold)
    show(_results(requests, setup, point), len(requests), source, setup, page)


def _page(gate_threshold: float) -> Callable[[list[TextResult], int], str]:
    def page(shown: list[TextResult], left_out: int) -> str:
        from dualmask.families.edit.cli.page import trace_page

        return trace_page(shown, gate_threshold=gate_threshold, left_out=left_out)

    return page


def _results(requests: Sequence[TextRequest], setup: Setup, point: OperatingPoint) -> Iterator[TextResult]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # megatron names optional packages that inference has no use for
        from tqdm import tqdm

        from dualmask.families.edit.infer.text import Writer
        from dualmask.inference.loading import load

    bar = tqdm(total=0, unit=" windows", delay=PROGRESS_AFTER_SECONDS, leave=False, disable=None)

    def progress(added: int, done: int) -> None:
        bar.total += added
        bar.update(done)

    with bar:
        writer = Writer(load(setup.model, setup.device), progress=progress, point=point)
        for first in range(0, len(requests), TEXTS_AT_ONCE):
            yield from writer.run(requests[first : first + TEXTS_AT_ONCE])


def _check_locks(locks: Locks, texts: Sequence[str]) -> None:
    for words in locks.lock or ():
        if not any(words in text for text in texts):
            raise ValueError(f"lock {words!r} occurs nowhere in the text: give words as they stand there")


def _span(text: str) -> tuple[int, int]:
    start, colon, end = text.partition(":")
    if not (colon and start.isdecimal() and end.isdecimal()):
        raise ValueError(f"lock span {text!r} is not possible: give two character numbers such as 10:25")
    return int(start), int(end)
