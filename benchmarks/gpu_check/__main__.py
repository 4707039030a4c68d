"""One command for one GPU: ``python -m benchmarks.gpu_check --minutes 9 --out DIR``.

Runs its sections in order of value and writes ``DIR/NAME.json`` (results), ``DIR/NAME.log`` (messages) and
``DIR/summary.md`` as soon as there is something. Each section is a process of its own with a limit of its own. Needs no
network, and neither mlflow, ray, webdataset nor sentencepiece (docs/gpu.md). Exit code: 0 if all sections passed, 1 if
not, 2 for a bad request. ``--device cpu --tiny`` runs them all with the smallest models, which shows that they run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from benchmarks.gpu_check.schedule import Outcome, Section, run_sections
from benchmarks.gpu_check.summary import lines_of, summarise

SECTIONS = (
    Section("card", 3, "The card"),
    Section("parity", 20, "The same losses on CPU and device, in fp32 and bf16, under every ZeRO stage"),
    Section("speed", 45, "Time of a step"),
    Section("memory", 12, "Memory against the planner"),
    Section("attention", 5, "Which attention was taken"),
    Section("waits", 6, "How often the host waits for the device"),
    Section("timeline", 6, "Where a joint step goes"),
    Section("launches", 6, "Kernels of a step, and the host's time for them"),
)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: --device cuda, but torch sees no CUDA device: give --device cpu --tiny", file=sys.stderr)
        return 2
    sections = [section for section in SECTIONS if section.name in options.sections]
    options.out.mkdir(parents=True, exist_ok=True)
    for section in sections:
        (options.out / f"{section.name}.json").unlink(missing_ok=True)  # of a run before
    tiny = ["--tiny"] if options.tiny else []
    outcomes: list[Outcome] = []
    for outcome in run_sections(
        sections,
        lambda name: [sys.executable, "-m", "benchmarks.gpu_check.section", name, "--out", str(options.out), *tiny],
        seconds=60 * options.minutes,
        out=options.out,
        environment=environment(options.device),
    ):
        outcomes.append(outcome)
        for line in lines_of(outcome, options.out):
            print(line, flush=True)
        (options.out / "summary.md").write_text(summarise(outcomes, sections, options.out), encoding="utf-8")
    return int(not all(outcome.passed for outcome in outcomes))


def environment(device: str) -> Mapping[str, str]:
    """Of the sections."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    result = os.environ | {"DS_ACCELERATOR": device, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    return result if device == "cuda" else result | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=9, help="for all sections together (9)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the smallest models")
    parser.add_argument("--sections", type=_names(names), default=names, metavar="A,B", help=", ".join(names))
    options = parser.parse_args(arguments)
    if options.device == "cpu" and not options.tiny:
        parser.error("--device cpu needs --tiny: the models of the other sections are for a GPU")
    return options


def _names(known: list[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: give some of {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
