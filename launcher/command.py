"""The command ``dualmask``: everything under one name, and one way of saying what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer.exceptions import TyperException

from data_pipeline.command import app as data
from dualmask.inference.folder import Stored
from dualmask.serving.cli import make_app
from dualmask.serving.eval_command import app as evaluation

USER_ERROR = 2
INTERRUPTED = 130

app = typer.Typer(
    name="dualmask",
    help="Train and run language models that write by deleting, asking and filling.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(make_app())
app.add_typer(data, name="data")
app.add_typer(evaluation, name="eval")


@app.command()
def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder, a checkpoint's, or an export.", show_default=False)
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="A new folder.", show_default=False)],
    training: Annotated[
        bool,
        typer.Option(
            "--training",
            help="With the optimizer's state: training goes on from there with --resume OUT, on any ranks.",
        ),
    ] = False,
    weights: Annotated[
        Literal["last", "average"] | None,
        typer.Option(
            help="From a checkpoint: the weights of its last step, or their average over the steps of its stage "
            "(optimizer.ema_decay). Without it those of the run's checkpoint.export.",
            show_default=False,
        ),
    ] = None,
    stored: Annotated[
        Stored | None,
        typer.Option(
            "--dtype",
            help="Of the weights in the file; int8: with a scale a row, a quarter as large. Without it as they are, "
            "from a checkpoint float32.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a model folder (model.safetensors, config.json, tokenizer.model) from a run or from one checkpoint."""
    from dualmask.training.export import export as export_run

    export_run(run, out, training=training, weights=weights, stored=stored)
    typer.echo(f"model folder: {out}", err=True)


@app.command()
def calibrate(
    model: Annotated[
        Path, typer.Option(metavar="DIR", help="Exported folder, or a run's folder; is changed.", show_default=False)
    ],
    data: Annotated[
        Path | None, typer.Option(metavar="F.jsonl", help="Right texts, new to the model.", show_default=False)
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One threshold, by hand; none: not asked; repeatable."),
    ] = None,
) -> None:
    """Choose anew how sure a model must be before it changes a text.

    Mistakes are made in the texts of --data; the thresholds with the best F0.5 of edits among those that leave right
    texts alone go into DIR/decision.json, with the curve that --precision picks from. A finished run has done that with
    the dev part of its data. --set changes some of them afterwards.

    \b
    dualmask calibrate --model runs/quickstart --data letters.jsonl
    dualmask calibrate --model runs/quickstart --set edit_threshold=0.4 --set preference=2
    """
    from dualmask.evaluation.texts import read_texts
    from launcher.finish import choose_again, set_thresholds

    given = dict(map(_threshold, values or ()))
    if data is None and not given:
        raise ValueError("nothing to choose by: give --data with right texts, or --set NAME=VALUE")
    if data is not None:
        choose_again(model, read_texts(data))
    if given:
        set_thresholds(model, given)


def _threshold(text: str) -> tuple[str, float | None]:
    """NAME=VALUE. Raises ValueError."""
    name, _, value = text.partition("=")
    try:
        return name, None if value == "none" else float(value)
    except ValueError:
        raise ValueError(f"--set {text}: give NAME=VALUE with a number, for instance edit_threshold=0.4") from None


def run(arguments: Sequence[str]) -> int:
    """The exit code. Whatever the user can mend is one line on stderr and code 2."""
    try:
        return app(arguments or ["--help"], prog_name="dualmask", standalone_mode=False) or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except TyperException as error:
        message = error.format_message()
        if message.startswith("Usage:"):  # a group that was called without a command
            print(message)
            return 0
        return _complain(message + _given(error, arguments))
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except ValueError as error:
        return _complain(str(error))


def _given(error: TyperException, arguments: Sequence[str]) -> str:
    """The value that was refused: typer's message names the option only."""
    words = [word for argument in arguments for word in argument.split("=", 1 if argument.startswith("--") else 0)]
    for option in getattr(getattr(error, "param", None), "opts", ()):
        if option in words[:-1]:
            return f" (given: {words[words.index(option) + 1]!r})"
    return ""


def _complain(message: str) -> int:
    print(f"dualmask: {' '.join(message.split())}", file=sys.stderr)
    return USER_ERROR


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
