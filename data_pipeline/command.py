"""``dualmask data build | verify | trace``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

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
    """From raw text to shards, tokenizer and manifest. A second run only builds what is missing."""
    from data_pipeline import supervised

    try:
        supervised.run(_build, config, overrides or [], wait)
    except supervised.Stopped as stop:
        said = f"stopped by {stop.number.name}: what is finished is kept, the same command goes on"
        typer.echo(f"dualmask: {said}", err=True)
        raise typer.Exit(128 + stop.number) from None


def _build(config: Path, overrides: list[str], wait: bool) -> None:
    from data_pipeline.build import build as build_data
    from dualmask.config.data import DataBuildConfig
    from dualmask.config.load import load_yaml_model

    logging.basicConfig(format="%(message)s")
    logging.getLogger("data_pipeline").setLevel(logging.INFO)
    build_data(load_yaml_model(config, DataBuildConfig, overrides), wait)


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
