"""``dualmask data build | stats | inspect | verify | repair | trace``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(help="Make and check data folders.", no_args_is_help=True)


@app.command()
def build(
    config: Annotated[Path, typer.Option(help="YAML file, see configs/data/")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value, for instance workers=4")] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="for another build that writes into the same output, or end")
    ] = True,
) -> None:
    """From raw text to shards, tokenizer and manifest. A second run only builds what is missing.

    A file that has `sources` instead of `source` builds a folder for each of them, which runs read by weight.

    \b
    dualmask data build --config configs/data/jsonl.yaml --set 'source.paths=[corpus]' --set output=data/mine
    """
    _supervised(_build, config, overrides or [], wait)


def _build(config: Path, overrides: list[str], wait: bool) -> None:
    from data_pipeline.build import build as build_data
    from data_pipeline.corpora import build_mixture
    from dualmask.config.data import DataBuildConfig
    from dualmask.config.load import load_build

    _log_to_stderr()
    loaded = load_build(config, overrides)
    if isinstance(loaded, DataBuildConfig):
        build_data(loaded, wait)
    else:
        build_mixture(loaded, wait)


def _supervised(work: Callable[..., None], *arguments: Any) -> None:
    from data_pipeline import supervised

    try:
        supervised.run(work, *arguments)
    except supervised.Stopped as stop:
        said = f"stopped by {stop.number.name}: what is finished is kept, the same command goes on"
        typer.echo(f"dualmask: {said}", err=True)
        raise typer.Exit(128 + stop.number) from None


def _log_to_stderr() -> None:
    logging.basicConfig(format="%(message)s")
    logging.getLogger("data_pipeline").setLevel(logging.INFO)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="data folder")],
    size_only: Annotated[bool, typer.Option(help="compare sizes instead of digests")] = False,
    full: Annotated[bool, typer.Option("--full", help="read everything, not only what has changed")] = False,
) -> None:
    """Lists the shards that differ from the manifest; exit code 1 if there are any. Reads what has changed since it was
    verified."""
    from data_pipeline.manifest import Manifest
    from data_pipeline.verify import verify_shards

    filled = [name for name, info in Manifest.load(folder).splits.items() if info.rows]
    mode: Literal["digest", "size", "full"] = "size" if size_only else "full" if full else "digest"
    bad = [shard for split in filled for shard in verify_shards(folder, split, mode)]
    for shard in bad:
        typer.echo(f"{shard.file}: {shard.reason}")
    typer.echo(f"{folder}: {len(bad)} bad shards")
    raise typer.Exit(1 if bad else 0)


@app.command()
def trace(
    place: Annotated[str, typer.Argument(metavar="SHARD:ROW", help="such as data/mine/train-000003.tar:17")],
) -> None:
    """Lists the parts of documents that a sequence holds: file, start and stop, in bytes or rows of the file."""
    from data_pipeline.trace import trace as origins_of

    for origin in origins_of(place):
        typer.echo(f"{origin.file} {origin.start} {origin.stop}")


@app.command()
def stats(
    folder: Annotated[Path, typer.Argument(help="data folder")],
    as_json: Annotated[bool, typer.Option("--json", help="one object, for programs")] = False,
) -> None:
    """What a folder holds: documents, tokens and rows by split, lengths, and what the build has dropped and why.

    Reads the manifest and report.json, no shard: as fast for a terabyte. report.html shows more.

    \b
    dualmask data stats data/mine
    """
    import json

    from data_pipeline.stats import collect, table

    found = collect(folder)
    typer.echo(json.dumps(found, indent=1) if as_json else table(found))


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="data folder")],
    split: Annotated[str, typer.Option(help="train, dev or test")] = "train",
    rows: Annotated[int, typer.Option(min=1, help="how many sequences")] = 3,
) -> None:
    """Shows sequences as text, with the file and place of each document that they hold a part of.

    They are the first of the split, whose order is random.

    \b
    dualmask data inspect data/mine --split dev --rows 5
    """
    from data_pipeline.examples import examples

    for example in examples(folder, split, rows):
        typer.echo(f"{example.place}  {example.tokens} tokens")
        for origin in example.origins:
            typer.echo(f"  from {origin.file} {origin.start} {origin.stop}")
        for text in example.texts:
            typer.echo("".join(f"  | {line}\n" for line in text.split("\n")))


@app.command()
def repair(
    folder: Annotated[Path, typer.Argument(help="data folder")],
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="for a build that writes into the same folder, or end")
    ] = True,
) -> None:
    """Makes the shards that verify finds bad again, byte for byte, and touches no other.

    From what the build has left in .work, or else from the sources, with the configuration in built.json. Sources that
    have changed give other shards: that is said, and nothing is changed.

    \b
    dualmask data repair data/mine
    """
    _supervised(_repair, folder, wait)


def _repair(folder: Path, wait: bool) -> None:
    from data_pipeline.repair import repair as repair_data

    _log_to_stderr()
    made = repair_data(folder, wait)
    for file in made:
        typer.echo(f"{file}: made again")
    typer.echo(f"{folder}: {len(made)} shards repaired")
