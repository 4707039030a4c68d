"""``report.html`` of several corpora beside each other: what each holds and how much of it a run reads."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.files import write_atomically
from data_pipeline.manifest import Manifest
from data_pipeline.page import PAGE_FILE, Bar, percent, template
from dualmask.config.mixture import Mixture, read_mixture


def write_mixture_page(folder: Path) -> None:
    """Writes the page of a finished build. Raises ManifestError and ConfigError."""
    mixture = read_mixture(folder)
    assert mixture is not None  # the build has just written it
    write_atomically(folder / PAGE_FILE, _render(folder, mixture).encode(errors="replace"))


def _render(folder: Path, mixture: Mixture) -> str:
    manifests = {each.name: Manifest.load(folder / each.name) for each in mixture.sources}
    all_weights = sum(each.weight for each in mixture.sources)
    shares = {each.name: each.weight / all_weights for each in mixture.sources}
    rows = {name: manifest.splits["train"].rows for name, manifest in manifests.items()}
    sources = [
        {
            "name": each.name,
            "share": shares[each.name],
            "epochs": each.epochs,
            "train": manifests[each.name].splits["train"],
            "once": round(rows[each.name] / shares[each.name]),
            "page": f"{each.name}/{PAGE_FILE}",
            "about": manifests[each.name].source,
        }
        for each in mixture.sources
    ]
    all_rows = max(sum(rows.values()), 1)
    return template("mixture.html").render(
        name=folder.absolute().name,
        manifest=next(iter(manifests.values())),
        sources=sources,
        read=_bars(shares),
        held=_bars({name: count / all_rows for name, count in rows.items()}),
    )


def _bars(shares: dict[str, float]) -> list[Bar]:
    return [Bar(name, percent(share), share) for name, share in shares.items()]
