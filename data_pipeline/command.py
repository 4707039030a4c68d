"""``dualmask data build | verify``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

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
) -> None:
    """Lists the shards that differ from the manifest; exit code 1 if there are any."""
    from data_pipeline.manifest import Manifest
    from data_pipeline.verify import verify_shards

    filled = [name for name, info in Manifest.load(folder).splits.items() if info.rows]
    bad = [shard for split in filled for shard in verify_shards(folder, split, "size" if size_only else "digest")]
    for shard in bad:
        typer.echo(f"{shard.file}: {shard.reason}")
    typer.echo(f"{folder}: {len(bad)} bad shards")
    raise typer.Exit(1 if bad else 0)
