"""The measuring instruments, tried on a model whose right answers are known."""

import numpy as np
import pytest
import torch

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID, MASK_ID
from dualmask.evaluation import report, statistics, texts
from dualmask.families.edit.evaluate import baselines, deletion_suites, reconstruction
from dualmask.families.edit.masked_lm import masked_lm_scores
from dualmask.families.edit.outputs import InserterOut
from dualmask.nn.parallel import mesh
from dualmask.nn.parallel.vocabulary import target_and_best_nll
from dualmask.ops import deletion, gaps

WIDTH, VOCAB = 12, 40


@pytest.fixture(autouse=True, scope="module")
def _one_process():
    mesh.single_process()


class Scripted:
    """Restores every token by its place in the sentence "6 7 8 …"; opens what ``guess`` makes of the true counts."""

    vocab_size = VOCAB

    def __init__(self, guess=lambda count: count):
        self.guess = guess

    def count(self, skeleton, x_BTD=None, told=None):
        following = skeleton.tokens[:, 1:] - skeleton.tokens[:, :-1] - 1
        first = skeleton.tokens[:, 1] - 6
        true = torch.where(skeleton.tokens[:, :-1] == BOS_ID, first[:, None], following)
        last = WIDTH + 4 - skeleton.tokens[:, :-1]
        true = torch.where(skeleton.tokens[:, 1:] == EOS_ID, last - 1, true)
        present = gaps.gap_present(skeleton.length, WIDTH)
        count = self.guess(true.clamp(0, 8) * present)
        return InserterOut(torch.nn.functional.one_hot(count, 9).float(), present)

    def fill(self, tokens, length, slot, replaced=None):
        place = torch.arange(tokens.shape[1]).expand_as(tokens).flatten()[slot]
        return torch.nn.functional.one_hot((place + 5).clamp_max(VOCAB - 1), VOCAB).float() * 50

    def look(self, tokens, length, slot):
        states = tokens[..., None].float()  # of width 1
        return self.fill(tokens, length, slot), states


def sentence_batch(rows=4):
    tokens = torch.arange(5, 5 + WIDTH).repeat(rows, 1)
    tokens[:, 0], tokens[:, -1] = BOS_ID, EOS_ID
    return Batch(tokens, torch.full((rows,), WIDTH), torch.arange(rows))


def some_deletion(batch, rate=0.5):
    return baselines.random(batch, torch.full(batch.length.shape, rate))


def test_a_perfect_model_restores_everything_with_true_and_predicted_gaps():
    batch = sentence_batch()
    deleted = some_deletion(batch)
    out = reconstruction.restore(Scripted(), batch, deleted)
    assert torch.equal(out.right["true"], out.number)
    assert torch.equal(out.right["predicted"], out.number)
    assert torch.equal(out.gap_hits, out.gaps_actual)
    assert out.length_error.sum() == 0
    assert out.right["shuffled"].sum() < out.number.sum()


def test_a_wrong_count_costs_its_own_gap_only_and_never_by_chance():
    """One mask too many in the first open gap: its tokens do not count, however they are filled."""
    batch = sentence_batch(1)
    deleted = torch.zeros(1, WIDTH, dtype=torch.bool)
    deleted[0, [2, 3, 7]] = True

    def one_too_many(count):
        first = count.bool().int().argmax(1)
        return count + torch.nn.functional.one_hot(first, count.shape[1])

    out = reconstruction.restore(Scripted(one_too_many), batch, deleted)
    assert out.right["true"].tolist() == [3]
    # gap of 2 tokens got 3 masks: lost. Gap of token 7 is right, but stands one further to the right, where this model
    # fills by place, so its word is wrong: shifted text earns nothing by accident
    assert out.right["predicted"].tolist() == [0]
    assert out.gap_hits.tolist() == [1]
    assert out.gaps_actual.tolist() == [2]
    assert out.length_error.tolist() == [1]


@pytest.mark.parametrize("rate", [0.2, 0.3, 0.5, 0.7])
def test_all_deleters_delete_the_same_number(rate):
    batch = sentence_batch()
    asked = torch.full((4,), 1 - rate)
    number = deletion.budget(batch.deletable, asked)
    counts = reconstruction.token_counts([batch], VOCAB)
    prob = baselines.filler_scores(Scripted(), batch).prob
    for deleted in (
        baselines.random(batch, asked),
        baselines.frequent(batch, counts, asked),
        baselines.greedy(batch, prob, asked, spaced=False),
        baselines.greedy(batch, prob, asked, spaced=True),
    ):
        assert torch.equal(deleted.sum(1), number)
        assert not (deleted & ~batch.deletable).any()


def test_spaced_greedy_spares_neighbours_while_it_can():
    score = torch.linspace(1, 0.1, WIDTH).repeat(1, 1)
    where = torch.ones(1, WIDTH, dtype=torch.bool)
    chosen = baselines.best_apart(score, where, torch.tensor([4]))
    assert chosen[0].nonzero().flatten().tolist() == [0, 2, 4, 6]
    assert baselines.best_apart(score, where, torch.tensor([WIDTH])).all()


def test_filler_opinion_never_sees_the_token_itself():
    batch = sentence_batch()
    seen = []

    class Spy(Scripted):
        def fill(self, tokens, length, slot, replaced=None):
            assert (tokens.flatten()[slot] == MASK_ID).all()
            seen.append(slot)
            return super().fill(tokens, length, slot, replaced)

    opinion = masked_lm_scores(Spy().look, target_and_best_nll, batch, 5)
    assert (
        torch.cat(seen) % batch.tokens.numel()
    ).sort().values.tolist() == batch.deletable.flatten().nonzero().flatten().tolist()
    assert (opinion.prob[batch.deletable] > 0.99).all()
    assert (opinion.prob[~batch.deletable] == 0).all()


def test_filler_states_are_pooled_over_the_text_and_never_over_its_padding():
    batch = sentence_batch(1)
    short = Batch(batch.tokens, torch.tensor([5]), batch.key)
    rubbish = Batch(torch.where(short.present, short.tokens, 33), short.length, short.key)
    pooled = [masked_lm_scores(Scripted().look, target_and_best_nll, x, 5).pooled for x in (short, rubbish)]
    assert torch.equal(*pooled)
    # BOS 6 7 8 9, whose three inner tokens (EOS is the last place) are each hidden in one of the five passes
    once_hidden = (4 * short.tokens[0, 1:4] + MASK_ID).sum() + 5 * (short.tokens[0, 0] + short.tokens[0, 4])
    assert pooled[0].item() == pytest.approx(once_hidden.item() / 25)


def test_bootstrap_interval_has_the_width_of_theory():
    draw = np.random.default_rng(1)
    hits = draw.random((2000, 1)) < 0.3
    row = statistics.row("share", statistics.ratio, np.concatenate([hits, np.ones_like(hits)], 1))
    assert row["value"] == pytest.approx(hits.mean())
    expected = 2 * 1.96 * (0.3 * 0.7 / 2000) ** 0.5
    assert row["hi"] - row["lo"] == pytest.approx(expected, rel=0.15)


def test_the_greedy_row_is_the_stronger_variant():
    rows = [
        {"metric": "restored", "gaps": "true", "deleted": 0.3, "method": "greedy_plain", "value": 0.4},
        {"metric": "restored", "gaps": "true", "deleted": 0.3, "method": "greedy_spaced", "value": 0.5},
        {"metric": "length_error", "deleted": 0.3, "method": "greedy_plain", "value": 0.1},
        {"metric": "length_error", "deleted": 0.3, "method": "greedy_spaced", "value": 0.2},
    ]
    rows = deletion_suites.with_strongest_greedy(rows)
    assert report.find(rows, metric="restored", method="greedy")["value"] == 0.5
    assert report.find(rows, metric="length_error", method="greedy")["value"] == 0.1


@pytest.mark.parametrize("line", ["{", '{"txt": 1}', "3"])
def test_bad_evaluation_data_is_named_with_its_line(tmp_path, line):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ValueError, match="line 2"):
        texts.read_texts(file)
