"""`dualmask eval span`: its likelihoods against passes made by hand, its controls, the whole of it on tiny models."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import language_model_config, write_random_model
from tiny_span import PARTS, VOCAB, make_model
from torch import Tensor
from torch.nn.functional import cross_entropy

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID
from dualmask.evaluation import report
from dualmask.evaluation.continuation import Task
from dualmask.families.span import spans
from dualmask.families.span.evaluate import gate as span_gate
from dualmask.families.span.evaluate import report as span_report
from dualmask.families.span.evaluate import spans as span
from dualmask.families.span.gate_net import CONTINUE
from dualmask.families.span.model import REACH, SpanFusion, SpanState
from dualmask.inference.loading import Loaded
from launcher import command

TEXT = "The value of a name is the object that it is bound to. "
K = 6


def make_sequences(number: int = 20, length: int = 18) -> list[list[int]]:
    return np.random.default_rng(0).integers(6, VOCAB, (number, length)).tolist()


@pytest.fixture(scope="module")
def task() -> Task:
    return span.make_task(make_sequences(), width=K, cuts=2, limit=16, seed=0)


def set_gate(model: SpanFusion, go_on: float) -> SpanFusion:
    """Whatever it reads, the gate says ``go_on``, positive or negative."""
    with torch.no_grad():
        model.gate.last.weight.zero_()
        model.gate.last.bias.zero_()[CONTINUE] = go_on
    return model.eval()


def test_spans_are_cut_at_different_places_behind_enough_prompt() -> None:
    sequences = [[*range(size)] for size in (13, 18, 40, 17) * 8]
    task = span.make_task(sequences, width=5, cuts=3, limit=17, seed=1)
    assert task.texts == 16
    assert len(task.prompts) == len(task.gold) == 3 * 16
    for text in range(16):
        pairs = [(task.prompts[row], task.gold[row]) for row in range(text, 48, 16)]
        assert len({len(prompt) for prompt, _ in pairs}) == 3
        for prompt, gold in pairs:
            assert len(prompt) >= span.LEAST_PROMPT
            assert [*prompt, *gold] == [*range(len(prompt) + 5)]
    with pytest.raises(ValueError, match=r"--span 5, --limit: 16 texts of 15 tokens are needed .* there are 12"):
        span.make_task(sequences[:16], width=5, cuts=3, limit=64, seed=1)


def slots_and_prefix(written: list[int], gold: list[int]) -> tuple[float, float]:
    rows = span.agreement(Task([[7]], [gold], 1), [written], "x")
    return rows[0]["value"], rows[1]["value"]


def test_the_prefix_ends_at_the_first_wrong_token() -> None:
    assert slots_and_prefix([1, 2, 9, 4], [1, 2, 3, 4]) == (0.75, 0.5)
    assert slots_and_prefix([9, 2, 3, 4], [1, 2, 3, 4]) == (0.75, 0.0)
    assert slots_and_prefix([1, 2, 3, 4], [1, 2, 3, 4]) == (1.0, 1.0)


def test_the_decoder_alone_costs_what_its_own_loss_says(task: Task) -> None:
    model = make_model().eval()
    nats = span.read_gold(model, task, at_once=5).autoregressive
    for row, (prompt, gold) in enumerate(zip(task.prompts, task.gold, strict=True)):
        text = [BOS_ID, *prompt, *gold]
        out, _ = model(Batch(torch.tensor([text]), torch.tensor([len(text)]), torch.tensor([0])))
        assert nats[row] == pytest.approx(out.loss[-K:].sum().item(), rel=1e-4)
    assert span.own_nats(model, task.prompts, task.gold, at_once=7) == pytest.approx(nats, rel=1e-4)


def first_look(model: SpanFusion, task: Task, row: int) -> tuple[SpanState, Tensor, object]:
    """The prompt of one span read by itself: the span's first state, its places, and what the decoder remembers."""
    prompt = torch.tensor([[BOS_ID, *task.prompts[row]]])
    length = torch.tensor([prompt.shape[1]])
    _, prefix = model(Batch(prompt, length, torch.tensor([0])))
    return model.begin(1, K), spans.positions(length, K), prefix.up_to(length, REACH)


@torch.inference_mode()
def test_with_one_step_gold_costs_the_mean_cross_entropy(task: Task) -> None:
    model = make_model(g_max=1).eval()
    gold = span.read_gold(model, task)
    assert gold.schedule.shape == (32, 1)
    assert set(gold.steps) == {1}
    for row in (0, 17):
        state, position, prefix = first_look(model, task, row)
        look, target = model.look(state, position, prefix), torch.tensor(task.gold[row])
        for nats, logits in ((gold.schedule, look.logits), (gold.proposed, look.pred_logits)):
            assert nats[row, 0] == pytest.approx(cross_entropy(logits, target, reduction="sum").item(), rel=1e-4)


@torch.inference_mode()
def test_with_more_steps_each_token_counts_when_it_is_written(task: Task) -> None:
    model = make_model(g_max=2).eval()
    gold = span.read_gold(model, task)
    row, target = 5, torch.tensor([task.gold[5]])
    state, position, prefix = first_look(model, task, row)
    one = model.look(state, position, prefix)
    pick = model.next_places(one, state, K // 2)
    two = model.look(SpanState(torch.where(pick, target, state.tokens), ~pick, one.z), position, prefix)
    nats = [cross_entropy(look.logits, target[0], reduction="none") for look in (one, two)]
    expected = [nats[0].sum().item(), (nats[0] * pick[0]).sum().item() + (nats[1] * ~pick[0]).sum().item()]
    assert gold.schedule[row] == pytest.approx(expected, rel=1e-4)
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)


def test_a_gate_that_always_says_the_same_is_a_fixed_number_of_steps(task: Task) -> None:
    shut, open_ = (span.read_gold(set_gate(make_model(), go_on), task) for go_on in (-1.0, 1.0))
    assert shut.schedule.shape == (32, 3)  # 2 places a step: the fourth would find nothing to write
    assert (shut.learned == shut.schedule[:, 0]).all()
    assert (open_.learned == open_.schedule[:, -1]).all()
    rows = span_gate.likelihood_rows(open_, task.row)
    for against in ("accurate", "fixed"):
        assert report.find(rows, metric="quality_kept", against=against)["value"] == pytest.approx(1)
    assert report.find(rows, metric="steps_saved")["value"] == 0


def test_the_randomised_baseline_is_the_cheapest_of_its_mean() -> None:
    assert span_gate.randomised_baseline(np.array([3.0, 2.0, 0.0]), 2.0) == pytest.approx([0.5, 0, 0.5])
    assert span_gate.randomised_baseline(np.array([3.0, 1.0, 0.0]), 2.0) == pytest.approx([0, 1, 0])
    assert span_gate.randomised_baseline(np.array([3.0, 1.0, 0.0]), 1.25) == pytest.approx([0.75, 0.25, 0])
    assert span_gate.randomised_baseline(np.array([3.0]), 1.0) == pytest.approx([1])


def test_only_a_gate_that_knows_gives_hard_spans_more_steps() -> None:
    draw = np.random.default_rng(0)
    task = Task([[7]] * 96, [[7]] * 96, 48)
    difficulty = draw.normal(size=96)
    for steps, knows in ((1 + (difficulty > 0.2), True), (draw.integers(1, 3, 96), False)):
        rows = span_gate.difficulty_rows(steps, difficulty, task.row)
        learned, shuffled = (report.find(rows, metric="steps_gap", method=name) for name in ("learned", "shuffled"))
        assert abs(shuffled["value"]) < 0.02
        assert shuffled["lo"] < 0 < shuffled["hi"]
        assert (learned["value"] > shuffled["hi"] and learned["lo"] > 0) == knows
    third = {row["third"]: row["value"] for row in rows if "third" in row}
    assert third["hard"] - third["easy"] == pytest.approx(learned["value"])


def test_all_rows_of_an_evaluation(task: Task) -> None:
    model = make_model().eval()
    rows = span.evaluate(Loaded(model, None, model.config), task, repeats=5, at_once=10)
    assert all(row["lo"] <= row["value"] <= row["hi"] and row["n"] > 0 for row in rows)
    value = {(row["metric"], row["method"]): row["value"] for row in rows if not row.keys() & {"third", "bin"}}
    steps = {"fast": 1, "fixed:1": 1, "fixed:2": 2, "fixed:3": 3, "accurate": 3, "autoregressive": K}
    for method, number in steps.items():
        assert value["steps", method] == value["decoder_passes", method] == number
        assert value["tokens_per_pass", method] == K / number
        assert value["prefix", method] <= value["span_accuracy", method]
        assert {"gold_nll", "own_perplexity", "distinct2", "seconds", "speedup_vs_ar"} <= {
            metric for metric, name in value if name == method
        }
    assert value["block_passes", "fixed:2"] == 2 * (2 + 1)  # two of the decoder, one of the encoder
    assert value["speedup_vs_ar", "autoregressive"] == 1
    for pair in (("fast", "fixed:1"), ("accurate", "fixed:3")):
        for metric in ("gold_nll", "span_accuracy", "own_perplexity"):
            assert value[metric, pair[0]] == value[metric, pair[1]]
    assert value["own_perplexity", "reference"] == pytest.approx(math.exp(value["gold_nll", "autoregressive"]), 1e-4)
    for metric in ("span_accuracy", "prefix", "own_perplexity", "distinct2"):
        assert value[metric, "verified"] == value[metric, "autoregressive"]
    assert 2 <= value["steps", "verified"] <= K
    calibration = [row for row in rows if row["metric"] == "calibration_steps"]
    assert sum(row["n"] for row in calibration) == 32
    entropy = [row["entropy"] for row in calibration]
    assert entropy == sorted(entropy)
    assert np.mean([row["value"] for row in calibration]) == pytest.approx(value["steps", "learned"])
    assert span_report.tables(rows)[0].row_count == len(steps) + 4  # learned, verified, reference, prompt


@pytest.fixture(scope="module")
def folders(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place, tokenizer = tmp_path_factory.mktemp("spans"), model_folder / "tokenizer.model"
    config = PARTS.model_copy(update={"max_length": language_model_config("autoregressive").max_length})
    (place / "texts.jsonl").write_text(f"{json.dumps({'text': TEXT * 60})}\n")
    return {
        "model": write_random_model(place / "model", config, tokenizer),
        "scorer": write_random_model(place / "scorer", language_model_config("autoregressive"), tokenizer, 1),
        "dualmask": model_folder,
        "data": place / "texts.jsonl",
    }


def run(folders: dict[str, Path], *options: str, model: str = "model") -> int:
    return command.run(["eval", "span", "--model", str(folders[model]), "--data", str(folders["data"]), *options])


def test_the_command_writes_result_file_and_plot(
    folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    small = ("--span", "4", "--spans", "2", "--limit", "16")
    files = ("--scorer", str(folders["scorer"]), "--json", str(out), "--plot", str(picture))
    assert run(folders, *small, *files) == 0
    result = json.loads(out.read_text())
    assert (result["suite"], result["span"], result["texts"]) == ("span", 4, 16)
    outside = {row["method"] for row in result["rows"] if row["metric"] == "outside_perplexity"}
    assert outside > {"learned", "fast", "accurate", "autoregressive", "reference"}
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capfd.readouterr().out
    assert max(map(len, printed.splitlines())) <= 110
    assert "fixed:3" in printed
    assert "hard − easy third: shuffled" in printed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--span", "28"), "--span 28, --limit: 16 texts of 39 tokens are needed"),
        (("--scorer", "{dualmask}"), "give one of the family autoregressive"),
        (("--repeats", "1"), "--repeats"),
    ],
)
def test_what_is_wrong_is_one_line(
    folders: dict[str, Path], capfd: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    assert run(folders, *(option.format(**folders) for option in options)) == 2
    out, message = capfd.readouterr()
    assert out == ""
    assert message.count("\n") == 1
    assert words in message


def test_it_measures_spanfusion_only(folders: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(folders, model="dualmask") == 2
    assert "holds a model of the family dualmask; give one of the family spanfusion" in capfd.readouterr().err
