"""What each repair of SpanFusionLM is worth: ``python -m benchmarks.experiments.repairs --config C --json out.json``.

Stage ``span`` is trained anew for each arm and seed, equally long, on the same data, from the same decoder and a fresh
encoder and gate. ``repaired`` is the configuration as it stands; every other arm changes what it says (R7 to R16 of
docs/spanfusion.md), and an arm that changes nothing is not trained twice. What needs no training is read off
``repaired``: the other order of filling (R13), padding that is seen (R14), what a stop would leave open without the
filling (R8), and what ``fast`` and ``accurate`` mean (R11). Seconds with and without the prompt's cache (R12):
``benchmarks.span_cache``.

The hard and the easy third of the spans are told apart by each model's own decoder, used token by token. An arm that is
finished is not trained again, and one that was interrupted goes on.
"""

# n spans, K positions of a span

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.table import Table
from safetensors.torch import load_file

from benchmarks.experiments import trials
from benchmarks.experiments.trials import Trial, write_config
from dualmask.config.load import load_run
from dualmask.config.schema import RunConfig
from dualmask.core import manifest
from dualmask.core.tokenizer import EOS_ID, Tokenizer
from dualmask.evaluation import report, statistics, texts
from dualmask.evaluation.continuation import Task
from dualmask.evaluation.statistics import Row
from dualmask.families.span import spans
from dualmask.families.span.config import SpanStage
from dualmask.families.span.evaluate import gate as span_gate
from dualmask.families.span.evaluate import spans as span
from dualmask.families.span.model import SpanFusion
from dualmask.inference.folder import open_folder
from dualmask.inference.loading import load
from dualmask.training.export import write_export
from dualmask.training.metrics import read_lines
from dualmask.training.tensor_file import Tensors

SPAN = "stages.0.span"
DRAWN = f"{SPAN}.gate_estimator=gumbel"
CUT, OPEN, NO_PRED = f"{SPAN}.detach_pred=true", f"{SPAN}.detach_pred=false", f"{SPAN}.losses.pred=0"
REPAIRED = "repaired"
ARMS: dict[str, tuple[str, ...]] = {
    REPAIRED: (),
    "R7 drawn stops": (DRAWN, f"{SPAN}.gate_gradient=quality"),
    "R7 counter": (DRAWN, f"{SPAN}.gate_gradient=none"),
    "R7 cost only": (f"{SPAN}.gate_gradient=cost",),
    "R9 cut, pred loss": (CUT,),
    "R9 cut, no pred loss": (CUT, NO_PRED),
    "R9 open, pred loss": (OPEN,),
    "R9 open, no pred loss": (OPEN, NO_PRED),
    "R10 same weights": (f"{SPAN}.teacher=same",),
    "R10 EMA teacher": (f"{SPAN}.teacher=ema",),
    "R10 no latent loss": (f"{SPAN}.losses.latent=0",),
    "R13 entropy": ("model.span.fill_order=entropy",),
    "R13 confidence": ("model.span.fill_order=confidence",),
    "R15 drawn writes": (f"{SPAN}.teacher_forcing=0",),
    "R16 no skip": ("model.span.skip=false",),
}
REPAIRS = tuple(dict.fromkeys(name.split()[0] for name in ARMS))
FRESH = ("encoder", "gate")  # what every arm begins anew
CUTS = 2  # spans of a text
LAST_STEPS = 20  # of the record, over which the spread of the states is taken
COLUMNS: dict[str, dict[str, Any]] = {
    "gold nats,\none step": {"metric": "gold_nll", "method": "fast"},
    "all steps": {"metric": "gold_nll", "method": "accurate"},
    "learned\ngate": {"metric": "gold_nll", "method": "learned"},
    "pred nats,\none step": {"metric": "pred_nll", "method": "fixed:1"},
    "slots right,\nall steps": {"metric": "span_accuracy", "method": "accurate"},
    "mean\nsteps": {"metric": "steps", "method": "learned", "third": None},
    "hard −\neasy": {"metric": "steps_gap", "method": "learned"},
    "latent\nstd": {"metric": "latent_std"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file of the whole run, whose last stage is span")
    parser.add_argument(
        "--model",
        type=Path,
        help="whose decoder all arms begin with: an exported folder, or a run's that kept the checkpoint where stage "
        "span begins; it should not have learnt spans. Default: the stages before that one are trained first, once",
    )
    parser.add_argument("--data", type=Path, help="held-out texts, jsonl; default: test.jsonl beside the data")
    trials.add_options(parser, runs=Path("runs/repairs"))
    parser.add_argument("--only", default=",".join(REPAIRS), help="some of: %(default)s")
    parser.add_argument("--limit", type=int, default=64, help=f"most texts, {CUTS} spans each; default: %(default)s")
    return trials.run_command(parser.parse_args(), run_all, tables, width=130)


def chosen(only: str) -> list[str]:
    """Arms of ``--only``: names of repairs. Raises ValueError."""
    if unknown := [word for word in only.split(",") if word not in REPAIRS]:
        raise ValueError(f"--only: {unknown[0]!r} is not one of {', '.join(REPAIRS)}")
    return [name for name in ARMS if name.split()[0] in only.split(",")]


def run_all(arguments: argparse.Namespace) -> list[Row]:
    """Trains and measures what is not there yet, and writes the result behind each arm. Raises ValueError."""
    all_trials = trials.trials_of(chosen(arguments.only), arguments)
    run = load_run(arguments.config, arguments.set)
    if run.stages[-1].name != "span":
        raise ValueError(
            f"--config {arguments.config}: its last stage is {run.stages[-1].name}; give one that ends with span"
        )
    data = arguments.data or run.data.folder / "test.jsonl"
    task = held_out(run, data, arguments.limit)
    init = decoder_only(run, arguments.model or decoder(run, arguments.runs), arguments.runs)
    rows: list[Row] = []
    by_config: dict[str, list[Row]] = {}  # arms that are configured alike are trained once
    for number, trial in enumerate(all_trials, 1):
        start = time.perf_counter()
        write_config(trial, run, init, [*ARMS[trial.arm], *trials.step_changes(arguments)])
        config = load_run(trial.config).model_dump_json(exclude={"name", "output"})
        if config not in by_config:
            about = {"data": str(data), "limit": arguments.limit}
            by_config[config] = trials.rows_of(trial, lambda run: measure(run, task), **about)
        rows += labelled(trial, by_config[config])
        about = {"config": str(arguments.config), "steps": arguments.steps, "spans": len(task.gold)}
        report.write(arguments.json, "repairs", rows, **about)
        label = f"{number} of {len(all_trials)}: {trial.arm}, seed {trial.seed}"
        print(f"{label}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return rows


def held_out(run: RunConfig, data: Path, limit: int) -> Task:
    """Spans of the first length that the stage teaches, each behind its prompt. Raises ValueError."""
    stage = run.stages[-1]
    assert isinstance(stage, SpanStage)
    settings = stage.span
    tokenizer = Tokenizer(run.data.folder / "tokenizer.model")
    sequences = texts.sequences(texts.read_texts(data), tokenizer, run.model.max_length)
    bare = [ids[1:-1] for ids in sequences]  # without BOS and EOS
    return span.make_task(bare, width=settings.lengths[0], cuts=CUTS, limit=limit, seed=0)


def decoder(run: RunConfig, runs: Path) -> Path:
    """The run of the stages before the last, trained if it is not there. Raises ValueError."""
    if len(run.stages) == 1:
        raise ValueError("--config: stage span is its only one; say by --model whose decoder it begins with")
    trial = Trial("decoder", run.seed, runs / "decoder")
    write_config(trial, run, run.init, [], stages=slice(0, -1))
    trials.train(trial)
    return trial.folder / "export"


def decoder_only(run: RunConfig, origin: Path, runs: Path) -> Path:
    """A folder with the decoder alone, named by its weights: the modules that it lacks, every arm draws by its seed.

    Raises ValueError.
    """
    exported = open_folder(trials.initial_weights(run, origin, runs), "spanfusion")
    file = exported.path / "model.safetensors"
    folder = runs / f"decoder-only-{manifest.digest(file)[:8]}"
    kept = {name: weight for name, weight in load_file(file).items() if name.split(".")[0] not in FRESH}
    write_export(folder, Tensors.of(kept), exported.config, exported.vocab_size, exported.path / "tokenizer.model")
    return folder


def measure(run: RunConfig, task: Task) -> list[Row]:
    """The rows of a finished run: first its own, then with a ``repair`` and an ``arm`` what needs no other weights."""
    model = load(run.output, family="spanfusion").model
    rows = figures(model, task)
    other = "confidence" if model.span.fill_order == "entropy" else "entropy"
    variants = {
        ("R13", f"{other} when written"): figures(in_order(model, other), task),
        ("R14", "padding seen"): figures(model, padded(task, run.batch.sequences)),
        ("R8", "not filled"): left_open(model, task),
        ("R11", "named here"): named(rows),
        ("R11", "seed's comments"): named(rows, swapped=True),
    }
    rows.append(latent_std(run.output))
    return rows + [{"repair": repair, "arm": arm, **row} for (repair, arm), own in variants.items() for row in own]


def figures(model: SpanFusion, task: Task) -> list[Row]:
    """What true spans cost, how many tokens are right, and what the learned gate does."""
    gold = span.read_gold(model, task)
    rows = span_gate.likelihood_rows(gold, task.row)
    for arm in span.writers(model, task.width):
        if arm.method not in ("fast", "accurate", "learned"):
            continue
        sample = span.draw(arm, task, at_once=len(task.prompts))
        rows += span.agreement(task, sample.texts, arm.method)
        rows.append(mean_row(task, "steps", sample.steps, arm.method))
        if arm.method == "learned":
            rows += span_gate.difficulty_rows(sample.steps, gold.autoregressive, task.row)
    return rows


def mean_row(task: Task, metric: str, each: np.ndarray, method: str) -> Row:
    """The mean of figures [n]."""
    return task.row(metric, statistics.ratio, [each, np.ones(len(each))], method)


def in_order(model: SpanFusion, order: str) -> SpanFusion:
    """The same weights, told to write in the other ``order`` (R13)."""
    other = copy.copy(model)
    other.span = model.span.model_copy(update={"fill_order": order})
    return other


def padded(task: Task, together: int) -> Task:
    """Prompts as the seed's collate leaves them (R14): those of a batch of ``together`` made as long as the longest, on
    the right, with padding that is read and that shifts the span's positions.

    GPT-2, which the seed names, has no padding token; EOS takes its place there, and here.
    """
    prompts: list[list[int]] = []
    for start in range(0, len(task.prompts), together):
        batch = task.prompts[start : start + together]
        longest = max(map(len, batch))
        prompts += [[*prompt, *[EOS_ID] * (longest - len(prompt))] for prompt in batch]
    return Task(prompts, task.gold, task.texts)


def left_open(model: SpanFusion, task: Task) -> list[Row]:
    """Shares of the positions that would stay [PRED] if a stop filled nothing (R8): after a fixed number of steps, and
    where the learned gate stops."""
    learned = next(writer for writer in span.writers(model, task.width) if writer.method == "learned")
    steps = {"learned": span.draw(learned, task, at_once=len(task.prompts)).steps}
    most = span.most_steps(model, task.width)
    steps |= {f"fixed:{number}": np.full(len(task.gold), number) for number in range(1, most + 1)}
    return [
        mean_row(task, "left_open", open_share(taken, task.width, model.span.g_max), method)
        for method, taken in steps.items()
    ]


def open_share(steps: np.ndarray, width: int, g_max: int) -> np.ndarray:
    """[n] shares of ``width`` = K positions that ``steps`` [n] of M = ⌈K / g_max⌉ positions each do not reach."""
    return np.maximum(width - steps * spans.places_a_step(width, g_max), 0) / width


def named(rows: Sequence[Row], *, swapped: bool = False) -> list[Row]:
    """Steps under ``fast`` and ``accurate``; the seed's comments have fast go on and accurate stop (R11)."""
    meant = {"fast": "accurate", "accurate": "fast"} if swapped else {"fast": "fast", "accurate": "accurate"}
    return [report.find(rows, metric="steps", method=gate) | {"method": name} for name, gate in meant.items()]


def latent_std(output: Path) -> Row:
    """Spread of the span's states at the end of training: mean, least and greatest of the last steps (R10)."""
    lines = [record for _, record in read_lines(output / "metrics.jsonl")]
    spread = [line["losses"]["latent_std"] for line in lines[-LAST_STEPS:] if line["taken"]]
    mean = float(np.mean(spread))
    return {"metric": "latent_std", "value": mean, "lo": min(spread), "hi": max(spread), "n": len(spread)}


def labelled(trial: Trial, rows: Sequence[Row]) -> list[Row]:
    """With the dimensions repair, arm and seed. What was only read off the repaired model belongs to that arm alone."""
    repair, _, arm = trial.arm.partition(" ")
    dimensions = {"repair": repair, "arm": arm, "seed": trial.seed}
    return [{**dimensions, **row} for row in rows if trial.arm == REPAIRED or "repair" not in row]


def tables(rows: Sequence[Row]) -> list[Table]:
    """All figures of the arms; what stops leave open and what names mean. In a cell: a number for each seed."""
    small = [row for row in rows if row["repair"] in ("R8", "R11")]
    wide = _table(rows, "What each repair is worth", list(COLUMNS))
    for repair, arm in _arms([row for row in rows if row not in small]):
        cells = (_cell(rows, {"repair": repair, "arm": arm} | column) for column in COLUMNS.values())
        wide.add_row(f"{repair} {arm}", *cells)
    narrow = _table(small, "Read off the repaired model", ["method", "steps", "share left\nopen"])
    for repair, arm, method in dict.fromkeys((row["repair"], row["arm"], row["method"]) for row in small):
        dimensions = {"repair": repair, "arm": arm, "method": method}
        cells = (_cell(small, dimensions | {"metric": metric}) for metric in ("steps", "left_open"))
        narrow.add_row(f"{repair} {arm}", method, *cells)
    return [wide, narrow] if small else [wide]


def _arms(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """By repair; the repaired model first."""
    arms = dict.fromkeys((row["repair"], row["arm"]) for row in rows)
    return sorted(arms, key=lambda arm: int(arm[0].lstrip("R")) if arm[0] != REPAIRED else 0)


def _cell(rows: Sequence[Row], dimensions: Mapping[str, Any]) -> str:
    values = [row["value"] for row in rows if all(row.get(name) == value for name, value in dimensions.items())]
    return " ".join(f"{value:.3f}" for value in values)


def _table(rows: Sequence[Row], title: str, headings: Sequence[str]) -> Table:
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(row["seed"] for row in rows))
    out = Table(title=f"{title} (seeds {seeds})", title_justify="left", box=SIMPLE, padding=0)
    out.add_column("arm", no_wrap=True)
    for heading in headings:
        out.add_column(heading, justify="right", no_wrap=True)
    return out


if __name__ == "__main__":
    sys.exit(main())
