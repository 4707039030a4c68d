"""Stage `reward`: what is paid, that pay changes the decisions, and that the kl_coefficient holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dualmask.config.load import load_run
from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, SPECIAL_IDS
from dualmask.curriculum import plan_at
from dualmask.families.edit.config import EditConfig, RewardStage
from dualmask.families.edit.curriculum import EditPlan
from dualmask.families.edit.decisions import Odds
from dualmask.families.edit.model import DualMask
from dualmask.families.edit.reward import Ids, Reward, RewardTask, ScoredEditsTask, make_reward
from dualmask.families.edit.scored import ScoredTexts
from dualmask.families.edit.task import begin, unroll
from dualmask.nn.parallel import mesh

VOCAB, WIDTH, BAD = 24, 12, 7
FIRST = len(SPECIAL_IDS)


def make_stage(**changes: Any) -> RewardStage:
    rollout = {
        "samples": 8,
        "teacher_forced_deletions": 0,
        "on_policy_counts": 1,
        "gate_rows": 0,
        "first_round": "gate",
    }
    stage: dict[str, Any] = {
        "name": "reward",
        "steps": 100,
        "train": ["picker", "gate"],
        "lr": {"peak": 1e-2},
        "losses": {"recon": 0, "reinforce": 1},
        "deletion": {"temperature": 1.0},
        "rollout": rollout | {"starts": {"clean": 1}} | changes.pop("rollout", {}),
        "reward": {"source": "exact", "kl_coefficient": 0.0} | changes.pop("reward", {}),
    }
    return RewardStage.model_validate(stage | changes)


def make_model() -> DualMask:
    """Without an opinion of its own: each token goes with a probability of about a quarter."""
    mesh.single_process()
    torch.manual_seed(1)
    small = EditConfig(hidden=16, heads=2, filler_layers=1, inserter_layers=1, picker_layers=1, max_length=WIDTH)
    model = DualMask(small, VOCAB)
    with torch.no_grad():
        model.picker.trust.zero_()
        model.picker.twice.zero_()
        model.picker.delete.bias.zero_()
        model.picker.doubt.bias[:] = -1.0
    return model


def texts(rows: int, step: int) -> Batch:
    """Random tokens, two of them BAD."""
    draw = torch.Generator().manual_seed(step)
    tokens = torch.randint(BAD + 1, VOCAB, (rows, WIDTH), generator=draw)
    tokens[:, 0], tokens[:, -1] = BOS_ID, EOS_ID
    tokens[:, [3, 6]] = BAD
    return Batch(tokens, torch.full((rows,), WIDTH), torch.randint(0, 2**60, (rows,), generator=draw))


def learn(model: DualMask, stage: RewardStage, reward: Reward | None, batches: Any) -> list[dict[str, float]]:
    task = RewardTask(model, reward) if reward else ScoredEditsTask(model, None)
    learning = [p for name, p in model.named_parameters() if stage.module_of(name)]
    frozen = [p for name, p in model.named_parameters() if not stage.module_of(name)]
    for parameter in frozen:
        parameter.requires_grad_(False)
    optimizer = torch.optim.Adam(learning, lr=stage.lr.peak)
    seen = []
    for step in range(stage.steps):
        out = task.window(batches(step), plan_at([stage], step), range(1), None)
        optimizer.zero_grad()
        out.total.backward()
        optimizer.step()
        seen.append({name: float(value) for name, value in out.parts.items()})
    return seen


def mean(seen: Sequence[dict[str, float]], name: str) -> float:
    return sum(each[name] for each in seen) / len(seen)


def good_riddance(drafts: Sequence[Ids], targets: Sequence[Ids]) -> list[float]:
    """Share of the BAD tokens that are gone, less the share of the others that are gone."""
    pairs = zip(drafts, targets, strict=True)
    return [1 - draft.count(BAD) / 2 - sum(t not in draft for t in target if t != BAD) / 8 for draft, target in pairs]


def test_pay_teaches_what_to_delete() -> None:
    model = make_model()
    seen = learn(model, make_stage(), good_riddance, lambda step: texts(8, step))
    assert mean(seen[-20:], "reward") > mean(seen[:20], "reward") + 0.2
    batch = texts(64, 10_000)
    gain = model.read(batch, torch.ones(64)).logits.gain()
    is_bad = batch.tokens == BAD
    assert gain[is_bad].mean() > 1 + gain[~is_bad & batch.deletable].mean()


def test_the_picker_alone() -> None:
    """Without the Gate whole texts are edited, and nothing reaches what is frozen."""
    model = make_model()
    stage = make_stage(train=["picker"], steps=2)
    seen = learn(model, stage, good_riddance, lambda step: texts(4, step))
    assert "gate_free" not in seen[-1]
    assert seen[-1]["divergence"] > 0
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"picker"}


def test_the_leash_holds() -> None:
    seen = {
        kl_coefficient: learn(
            make_model(),
            make_stage(steps=40, reward={"kl_coefficient": kl_coefficient}),
            good_riddance,
            lambda s: texts(8, s),
        )
        for kl_coefficient in (0.0, 1.0)
    }
    loose, held = (mean(each[-10:], "divergence") for each in seen.values())
    assert seen[1.0][0]["divergence"] == 0, "the stage begins where its reference stands"
    assert loose > 1
    assert held < loose / 10


def test_scores_teach_without_a_rollout() -> None:
    """Outputs without the BAD tokens were liked, outputs that lost others were not."""
    edits = []
    for row in texts(16, 0).tokens.tolist():
        inner = row[1:-1]
        edits.append((inner, [token for token in inner if token != BAD], 5.0))
        edits.append((inner, [token for token in inner if token == BAD or token % 2], 1.0))
        edits.append((inner, inner, 2.0))
    source = ScoredTexts(edits, width=WIDTH, batch_size=24)
    model = make_model()
    seen = learn(model, make_stage(reward={"source": "scores", "scores": "f", "kl_coefficient": 1.0}), None, source.at)
    batch = texts(64, 10_000)
    gain = model.read(batch, torch.ones(64)).logits.gain()
    is_bad = batch.tokens == BAD
    assert gain[is_bad].mean() > 1 + gain[~is_bad & batch.deletable].mean()
    assert 0 < mean(seen[-20:], "divergence") < 2, "low scores do not push for ever"


def test_log_probability_is_that_of_the_draw() -> None:
    """Over many keys tokens go as often as their odds say, at a temperature that is not 1."""
    stage = make_stage(deletion={"temperature": 0.4}, rollout={"samples": 4000})
    model = make_model()
    plan, batch = EditPlan.of(plan_at([stage], 0)), texts(1, 3)
    with torch.no_grad():
        _, (out,) = unroll(model, begin(batch, plan), batch, plan, range(1))
        reading = model.read(batch, torch.ones(1))
    assert out.gate is not None
    assert out.log_prob is not None
    gate = torch.sigmoid(reading.gate_logit / 0.4)
    prob = torch.sigmoid(reading.logits.gain() / 0.4) * batch.deletable
    opened = out.gate.value.mean()
    torch.testing.assert_close(opened, gate[0], atol=0.03, rtol=0)
    torch.testing.assert_close(out.deleted.float().mean(0), prob[0] * opened, atol=0.03, rtol=0)
    open_row = int(out.gate.value.argmax())
    drawn = torch.where(out.deleted[open_row], prob[0], 1 - prob[0])[1:-1].log().sum()
    torch.testing.assert_close(out.log_prob["delete"][open_row], drawn)
    torch.testing.assert_close(out.log_prob["gate"][open_row], gate.log()[0])


def test_divergence_is_that_of_the_distributions() -> None:
    ours, theirs = torch.tensor([[0.3, -2.0, 40.0]]), torch.tensor([[1.0, -1.0, 5.0]])
    bernoulli = torch.distributions.Bernoulli
    each = torch.distributions.kl_divergence(bernoulli(logits=ours[:, :2]), bernoulli(logits=theirs[:, :2]))
    gate = torch.distributions.kl_divergence(bernoulli(logits=0.5), bernoulli(logits=0.0))
    deletable = torch.tensor([[True, True, False]])
    for free in (0.0, 1.0):
        found = Odds(ours, torch.tensor([0.5])).divergence(
            Odds(theirs, torch.tensor([0.0])), deletable, torch.tensor([free])
        )
        torch.testing.assert_close(found, each.sum(1) + gate * free)


@pytest.mark.parametrize("source", ["exact", "bleu", "rouge"])
def test_rewards_rank_drafts(source: Any) -> None:
    words = ["", "the", "cat", "sat", "on", "mat", "dog", "."]
    reward = make_reward(source, lambda ids: " ".join(words[index] for index in ids))
    target = [1, 2, 3, 4, 1, 5, 7]
    drafts = [target, [1, 6, 3, 4, 1, 5, 7], [6, 6, 6], []]
    worth = reward(drafts, [target] * len(drafts))
    assert worth[0] == pytest.approx(1)
    assert worth[0] > worth[1] > worth[2] >= worth[3] == 0
    if source == "exact":
        assert worth[1] == pytest.approx(6 / 7)


def test_scored_texts_do_not_depend_on_ranks_nor_on_where_one_begins() -> None:
    edits = [([FIRST + number], [FIRST], float(number)) for number in range(10)]
    whole = ScoredTexts(edits, width=WIDTH, batch_size=6, seed=3)
    parts = [ScoredTexts(edits, width=WIDTH, batch_size=3, data_rank=rank, data_world=2, seed=3) for rank in range(2)]
    for number in (7, 0, 4):
        shared = [part.at(number) for part in parts]
        for name in ("tokens", "length", "key", "output", "score"):
            joined = torch.cat([getattr(batch, name) for batch in shared])
            assert torch.equal(getattr(whole.at(number), name), joined)
    drafts = torch.cat([whole.at(number).tokens[:, 1] for number in range(5)])
    for epoch in drafts.view(3, 10):
        assert sorted(epoch.tolist()) == [FIRST + number for number in range(10)], "each edit once an epoch"
    assert len({tuple(epoch.tolist()) for epoch in drafts.view(3, 10)}) == 3
    assert torch.cat([whole.at(number).key for number in range(5)]).unique().numel() == 30
    torch.testing.assert_close(whole._score.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_the_shipped_configuration_fits_what_it_begins_with() -> None:
    configs = Path(__file__).parents[4] / "configs"
    begun, base = load_run(configs / "reward.yaml"), load_run(configs / "quickstart.yaml")
    assert begun.init == base.output
    assert (begun.model, begun.data.path) == (base.model, base.data.path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": ["picker", "filler"]}, "cannot train ['filler']"),
        ({"losses": {"recon": 0}}, "losses.reinforce"),
        ({"deletion": {"temperature": 0.0}}, "deletion.temperature=0.0"),
        ({"rollout": {"samples": 3}}, "samples=3"),
        ({"rollout": {"rounds": 4, "window": 2}}, "rollout.window=2"),
        ({"rollout": {"on_policy_counts": 0.5}}, "on_policy_counts=1"),
        ({"reward": {"source": "scores", "scores": "f"}, "rollout": {"rounds": 2}}, "rounds=2"),
        ({"reward": {"source": "scores"}}, "scores=None"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        make_stage(**changes)
    assert words in str(caught.value)
