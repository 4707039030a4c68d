"""The runs of the golden record: every stage of every family for 20 steps, at a size that takes seconds."""

from __future__ import annotations

from typing import Any

SMALL = {"hidden": 32, "heads": 4, "max_length": 32}
DUALMASK = SMALL | {"filler_layers": 1, "inserter_layers": 1, "picker_layers": 1}
SPAN = {"decoder_layers": 2, "encoder_layers": 1, "g_max": 4, "gate_hidden": 16}
EVERY_START = {"rewrite": 0.2, "skeleton": 0.2, "prefix": 0.1, "empty": 0.1, "corrupted": 0.3, "clean": 0.1}
LABELS = {"ptr_count": 1.0, "keep_recover": 1.0, "keep_oracle": 1.0, "gate_oracle": 0.3}
ALL = ["filler", "inserter", "picker", "gate"]


def stage(name: str, train: list[str], **changes: Any) -> dict[str, Any]:
    return {"name": name, "steps": 20, "train": train, "lr": {"peak": 3e-3, "warmup_steps": 2}} | changes


FILLER = stage("filler", ["filler"], losses={"kept_weight": 0.1})
INSERTER = stage(
    "inserter",
    ["inserter"],
    start_from={"inserter": "filler", "picker": "filler"},
    losses={"ptr_count": 1.0, "ptr_match": 0.1, "ptr_uniform": {"start": 0.1, "end": 0.0, "shape": "cosine"}},
)
PICKER = stage(
    "picker",
    ALL,
    lr_scale={"filler": 0.5},
    losses=LABELS | {"comp_hinge": 0.1},
    deletion={"temperature": {"start": 0.5, "end": 0.1}, "count_power": 0.5},
    rollout={"random_deletions": 0.4, "teacher_forced_deletions": 0.5, "on_policy_counts": 0.0, "starts": EVERY_START},
    picker_gradient=0.1,
)
JOINT = stage(
    "joint",
    ALL,
    losses=LABELS | {"comp_kl": 0.1, "gate": 1.0, "gate_cost": 0.05},
    rollout={
        "rounds": 4,
        "add_round_every": 5,
        "window": 2,
        "first_round": "gate",
        "earlier_weight": 0.5,
        "own_draft_weight": 0.5,
        "starts": EVERY_START,
        "stop": {"confidence": 0.9, "edit_distance": 0.05, "in_training": True},
    },
    picker_gradient=0.1,
)
REWARD = stage(
    "reward",
    ["picker", "gate"],
    losses={"recon": 0.0, "reinforce": 1.0},
    deletion={"temperature": 0.5},
    reward={"source": "rouge"},
    rollout={
        "rounds": 2,
        "samples": 4,
        "first_round": "gate",
        "starts": {"corrupted": 0.7, "clean": 0.3},
        "teacher_forced_deletions": 0.0,
        "on_policy_counts": 1.0,
        "gate_rows": 0.0,
        "fill_temperature": 0.2,
    },
)
# the other estimators, one round after the other in a single window
OTHER_ESTIMATORS = stage(
    "joint",
    ALL,
    losses=LABELS | {"gate": 1.0, "reinforce": 1.0},
    rollout={
        "rounds": 3,
        "window": 3,
        "samples": 4,
        "starts": EVERY_START,
        "gate_estimator": "straight_through",
        "count_estimator": "reinforce",
        "token_estimator": "straight_through",
    },
    picker_gradient=0.5,
)
SPAN_STAGE = stage(
    "span",
    ["decoder", "encoder", "gate"],
    span={"lengths": [4, 6], "losses": {"pred": 0.3, "gate_cost_steps": 10}, "teacher": "ema", "teacher_forcing": 0.5},
)
SPAN_EXPECTED = stage(
    "span",
    ["decoder", "encoder", "gate"],
    span={"lengths": [6], "gate_estimator": "expected", "explore": 0.5, "detach_pred": False, "teacher_forcing": 0.9},
)

RUNS: dict[str, dict[str, Any]] = {
    "dualmask": {"model": DUALMASK, "stages": [FILLER, INSERTER, PICKER, JOINT, REWARD]},
    "dualmask_estimators": {
        "model": DUALMASK | {"estimator": "hard_concrete", "selection": "free", "picker_probes": 0},
        "stages": [FILLER, OTHER_ESTIMATORS],
    },
    "spanfusion": {
        "model": SMALL | {"family": "spanfusion", "span": SPAN | {"skip": True}},
        "stages": [stage("decoder", ["decoder"]), SPAN_STAGE],
    },
    "spanfusion_separate": {
        "model": SMALL
        | {"family": "spanfusion", "span": SPAN | {"shared_projection": False, "fill_order": "confidence"}},
        "stages": [SPAN_EXPECTED],
    },
    "autoregressive": {"model": SMALL | {"family": "autoregressive", "layers": 2}, "stages": [stage("lm", ["lm"])]},
    "diffusion": {"model": SMALL | {"family": "diffusion", "layers": 2}, "stages": [stage("lm", ["lm"])]},
}
