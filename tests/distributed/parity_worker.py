"""Runs under a launcher: trains the curriculum once for each variant, and writes what it saw."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import decisions
import torch
import torch.distributed as dist

from data_pipeline.crop import Crop
from data_pipeline.reader import ShardReader, Share
from dualmask.config.load import load_run
from dualmask.nn.parallel import mesh
from dualmask.training.checkpoint import Checkpoints
from dualmask.training.engine import init_distributed
from dualmask.training.trainer import Stages, Surroundings, Trainer


class Watch:
    def __init__(self, decided: decisions.Record) -> None:
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        self.decisions: list[int] = []
        self._decided = decided

    def on_step(self, record) -> None:
        self.losses.append(record.losses["total"])
        self.grad_norms.append(record.grad_norm)
        self.decisions.append(self._decided.total)
        self._decided.total = 0

    def on_stage_end(self, stage_index, stage, texts) -> None:
        pass

    def close(self, status) -> None:
        pass


def train(config: Path, out: Path, vocab_size: int, overrides: list[str], extra: dict) -> None:
    run = load_run(config, overrides)
    share = Share(run.batch.sequences // mesh.data_size(), mesh.data_rank(), mesh.data_size(), run.data.shuffle_seed)
    data = ShardReader(run.data.path, share, Crop(run.data.crop_share))
    with decisions.recorded() as record:
        watch = Watch(record)
        stages = Stages(run, vocab_size, deepspeed=extra)
        engine = Trainer(stages, data, Checkpoints(out / "run", 1), Surroundings(observers=[watch])).fit()
    decided = torch.tensor(watch.decisions)
    dist.all_reduce(decided, group=mesh.data_group())
    weights = dict(engine.whole_weights().stream)
    engine.close()
    data.close()
    if dist.get_rank() == 0:
        seen = {"losses": watch.losses, "grad_norms": watch.grad_norms, "decisions": decided.tolist()}
        torch.save(seen | {"weights": weights}, out / "result.pt")


def main() -> None:
    job = json.loads(Path(sys.argv[-1]).read_text())
    torch.set_num_threads(1)
    init_distributed(tensor=job["tensor"], timeout_seconds=60, device=torch.device("cpu"))
    for name, variant in job["variants"].items():
        out = Path(job["out"]) / name
        out.mkdir(parents=True, exist_ok=True)
        train(Path(job["config"]), out, job["vocab_size"], variant["set"], variant.get("deepspeed", {}))
    dist.barrier()
    dist.destroy_process_group()


main()
