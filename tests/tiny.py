"""A corpus, a configuration and a launcher small enough for tests; everything is real."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_pipeline.manifest import Manifest, SplitInfo
from data_pipeline.rows import packed_rows
from data_pipeline.shards import token_dtype, write_shard
from data_pipeline.vocabulary import train as train_tokenizer
from dualmask.core.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer

ROOT = Path(__file__).resolve().parents[1]
VOCAB, LENGTH, ROWS = 300, 16, 32
STEPS = 16  # of CONFIG's stages together

STARTS = {"rewrite": 0.2, "skeleton": 0.2, "prefix": 0.1, "empty": 0.1, "corrupted": 0.3, "clean": 0.1}

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "model": {
        "hidden": 32,
        "heads": 4,
        "filler_layers": 1,
        "inserter_layers": 1,
        "picker_layers": 1,
        "max_length": LENGTH,
    },
    "batch": {"sequences": 8},
    "optimizer": {"eps": 1e-4},  # 1e-8 blows up the rounding noise of gradients that should be zero
    "stages": [
        {"name": "filler", "steps": 5, "train": ["filler"], "lr": {"peak": 3e-3, "warmup_steps": 2}},
        {
            "name": "inserter",
            "steps": 4,
            "train": ["inserter"],
            "start_from": {"inserter": "filler", "picker": "filler"},
            "lr": {"peak": 3e-3},
            "losses": {"ptr_count": 1.0},
        },
        {
            "name": "picker",
            "steps": 5,
            "train": ["picker", "inserter"],
            "lr": {"peak": 3e-3, "decay": "cosine"},
            "lr_scale": {"inserter": 0.5},
            "losses": {"ptr_count": 1.0, "keep_recover": 1.0, "comp_hinge": 0.1},
            "picker_gradient": 0.1,
        },
        {
            "name": "joint",
            "steps": 2,
            "train": ["filler", "inserter", "picker", "gate"],
            "lr": {"peak": 1e-3},
            "losses": {
                "ptr_count": 1.0,
                "keep_recover": 1.0,
                "keep_oracle": 1.0,
                "comp_kl": 0.1,
                "gate": 1.0,
                "gate_cost": 0.05,
            },
            "picker_gradient": 0.1,
            "rollout": {"rounds": 4, "window": 2, "first_round": "gate", "earlier_weight": 0.5, "starts": STARTS},
        },
    ],
    "checkpoint": {"every_steps": 2},
    "tracking": {"enabled": False},
}


def make_data(folder: Path, dev: int = 0, *, packed: bool = False) -> Path:
    """Two shards of random words, a tokenizer and a manifest, as ``dualmask data build`` leaves them. dev: rows of that
    part, which is left out if there are none. packed: rows hold several documents of 2 to 12 tokens."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(5)
    words = ["".join(chr(97 + letter) for letter in draw.integers(0, 26, 4)) for _ in range(60)]
    lines = [" ".join(draw.choice(words, 30)) for _ in range(120)]
    (folder / "tokenizer.model").write_bytes(train_tokenizer(iter(lines), VOCAB))
    tokenizer = Tokenizer(folder / "tokenizer.model")
    stream = [token for line in lines for token in tokenizer.encode(line)]
    inside = LENGTH - 2
    rows = [[BOS_ID, *stream[at : at + inside], EOS_ID] for at in range(0, len(stream) - inside, inside)]
    if packed:
        lengths = draw.integers(2, 13, len(stream) // 12)
        parts = np.stack([np.cumsum(lengths) - lengths, lengths], 1)
        ids, table = packed_rows(np.array(stream, token_dtype(VOCAB)), parts, inside)
        shuffled = draw.permutation(table).tolist()  # the rows of long documents come first
        whole = [[BOS_ID, *ids[start : start + length], EOS_ID] for start, length in shuffled]
        rows = [row + [PAD_ID] * (LENGTH - len(row)) for row in whole]
    held_out, rows = rows[4 * ROWS : 4 * ROWS + dev], rows[: 4 * ROWS]
    blocks = np.array(rows, dtype=token_dtype(VOCAB)).reshape(4, ROWS, LENGTH)
    shards = tuple(write_shard(folder, f"train-00000{number}.tar", blocks[2 * number :][:2]) for number in range(2))
    splits = {"train": SplitInfo(documents=len(lines), tokens=len(rows) * inside, rows=len(rows), shards=shards)}
    if dev:
        block = np.array(held_out, dtype=token_dtype(VOCAB))[None]
        assert len(held_out) == dev
        shards = (write_shard(folder, "dev-000000.tar", block),)
        splits["dev"] = SplitInfo(documents=1, tokens=dev * inside, rows=dev, shards=shards)
    Manifest(
        source="test",
        config_digest="0" * 64,
        tokenizer_digest=tokenizer.digest,
        vocab_size=VOCAB,
        max_length=LENGTH,
        packing="documents" if packed else "stream",
        dtype="uint16",
        splits=splits,
    ).save(folder)
    return folder


def write_config(folder: Path, data: Path, name: str = "tiny", **changes: Any) -> Path:
    """A run's YAML in ``folder`` whose output is ``folder/name``; ``changes``: section → what is updated in it."""
    tree = copy.deepcopy(CONFIG) | {"name": name, "output": str(folder / name), "data": {"path": str(data)}}
    if "family" in changes.get("model", {}):  # has other keys than CONFIG's
        tree["model"] = {key: tree["model"][key] for key in ("hidden", "heads", "max_length")}
    for key, value in changes.items():
        tree[key] = tree.get(key, {}) | value if isinstance(value, dict) else value
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return kept | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


def command(ranks: int, script: Path, *arguments: object) -> list[str]:
    """The real ``deepspeed`` launcher for several ranks; plain python for one."""
    if ranks == 1:
        return [sys.executable, str(script), *map(str, arguments)]
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", str(ranks)]
    return [*launcher, "--master_port", str(free_port()), str(script), *map(str, arguments)]


def launch(ranks: int, script: Path, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(ranks, script, *arguments), env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )


def train(ranks: int, config: Path, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return launch(ranks, ROOT / "launcher" / "train.py", "--config", config, *arguments, timeout=timeout)


def start_ranks(ranks: int, config: Path, *arguments: object) -> list[subprocess.Popen[str]]:
    """The ranks themselves, as torchrun or srun start them: quicker than a launcher, and each can be killed alone."""
    port = str(free_port())
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    command = [sys.executable, str(ROOT / "launcher" / "train.py"), "--config", str(config), *map(str, arguments)]
    return [
        subprocess.Popen(
            command,
            env=environment() | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]


def finish(ranks: list[subprocess.Popen[str]], timeout: float = 120) -> list[int]:
    """Exit codes; whatever hangs is killed and fails the test."""
    try:
        return [rank.wait(timeout) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def read_record(output: Path) -> list[dict[str, Any]]:
    """``metrics.jsonl`` without what depends on the clock."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key not in ("tokens_per_second", "data_wait")} for line in lines
    ]


def steps_done(output: Path) -> int:
    """Lines of the record, or 0 before it begins."""
    try:
        return (output / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
