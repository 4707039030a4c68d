"""The comparison of writers: its measures on texts whose figures are known, and the whole of it on tiny models."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import language_model_config, make_tokenizer, write_random_model

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID
from dualmask.evaluation import diversity, generation, generation_report, report
from dualmask.evaluation.judge import Judge
from dualmask.evaluation.writers import WriterSettings
from dualmask.families.edit.evaluate import writers as edit
from dualmask.families.lm import writers as lm
from dualmask.inference.loading import Loaded, load
from launcher import command

TEXT = "The value of a name is the object that it is bound to. "


def test_distinct_and_repeated_grams() -> None:
    assert diversity.distinct([[1, 2, 3], [1, 2, 4]], 1) == (4, 6)
    assert diversity.distinct([[1, 2, 3], [1, 2, 4]], 2) == (3, 4)
    assert diversity.repeated([1, 2, 3, 4, 5, 6]) == (0, 3)
    assert diversity.repeated([1, 2] * 5) == (5, 7)
    assert diversity.repeated([1, 2, 3]) == (0, 0)


def test_self_bleu_is_one_for_copies_and_small_for_strangers() -> None:
    copies = diversity.self_bleu(["the cat sat on the mat today"] * 3)
    assert copies == pytest.approx([1, 1, 1])
    strangers = diversity.self_bleu(["one two three four five", "six seven eight nine ten", "red blue green grey pink"])
    assert max(strangers) < 0.1


@pytest.fixture(scope="module")
def folders(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place, tokenizer = tmp_path_factory.mktemp("writers"), model_folder / "tokenizer.model"

    def make(name: str, family: str, seed: int) -> Path:
        return write_random_model(place / name, language_model_config(family), tokenizer, seed)

    (place / "texts.jsonl").write_text(f"{json.dumps({'text': TEXT * 100})}\n")
    return {
        "dualmask": model_folder,
        "ar": make("ar", "autoregressive", 0),
        "scorer": make("scorer", "autoregressive", 1),
        "diffusion": make("diffusion", "diffusion", 0),
        "data": place / "texts.jsonl",
    }


@pytest.fixture(scope="module")
def left_to_right(folders: dict[str, Path]) -> Loaded:
    return load(folders["ar"], "cpu", family="autoregressive")


def judge_of(loaded: Loaded) -> Judge:
    return Judge(loaded.model, loaded.tokenizer, loaded.config.max_length)


def test_the_judge_sums_the_losses_of_what_was_written_alone(left_to_right: Loaded) -> None:
    tokenizer, model = left_to_right.tokenizer, left_to_right.model
    ids = tokenizer.encode("The value of a name is the object.")
    other = tokenizer.encode("A list.")
    prompts, written = [ids[:4], other[:1], []], [ids[4:], other[1:], other]
    nats = judge_of(left_to_right).nats(prompts, written)
    assert nats[:, 1].tolist() == [len(ids) - 4, len(other) - 1, len(other)]
    for row, text, start in ((0, ids, 4), (1, other, 1), (2, other, 0)):
        batch = Batch(torch.tensor([[BOS_ID, *text, EOS_ID]]), torch.tensor([len(text) + 2]), torch.tensor([0]))
        assert nats[row, 0] == pytest.approx(model(batch).loss[start:-1].sum().item(), rel=1e-5)


def test_the_judge_reads_the_text_not_how_it_was_cut(left_to_right: Loaded) -> None:
    tokenizer = left_to_right.tokenizer
    whole = tokenizer.encode("value")
    letters = [index for letter in "value" for index in tokenizer.encode(letter)]
    assert len(letters) > len(whole)
    judge = judge_of(left_to_right)
    assert judge.nats([[]], [letters]).tolist() == judge.nats([[]], [whole]).tolist()


def curve(points: list[tuple[float, float]], groups: int = 4) -> list[generation.Sums]:
    """Temperatures with these (distinct-2, nats per token), the same in every group."""
    return [
        {
            "distinct2": np.array([[100 * varied, 100]] * groups),
            "perplexity": np.array([[50 * nats, 50]] * groups),
        }
        for varied, nats in points
    ]


def test_methods_are_compared_where_they_are_as_varied_as_the_reference() -> None:
    (reference,) = curve([(0.7, 1.0)])
    row = generation.matched_row(curve([(0.9, 4.0), (0.5, 2.0), (0.6, 3.0)]), reference, method="x")
    assert row is not None
    assert row["value"] == pytest.approx(math.exp(3 + 1 / 3))  # a third of the way from 0.6 to 0.9
    assert row["lo"] == row["hi"] == pytest.approx(row["value"])
    assert row["temperature"] == generation.MATCHED
    assert generation.matched_row(curve([(0.9, 4.0), (0.8, 2.0)]), reference, method="x") is None


def test_a_task_takes_whole_groups_of_long_enough_texts() -> None:
    sequences = [[*range(size)] for size in (10, 30, 12, 12)] * 8
    task = generation.make_task(sequences, 4, 12, limit=21)
    assert len(task.prompts) == 16
    assert task.width == 8
    assert (task.prompts[0], task.gold[0]) == ([0, 1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11])
    with pytest.raises(ValueError, match="16 texts of 31 tokens are needed, there are 0"):
        generation.make_task(sequences, 4, 31, limit=64)
    with pytest.raises(ValueError, match="--prompts 12"):
        generation.make_task(sequences, 12, 12, limit=64)


def test_all_rows_of_a_comparison(folders: dict[str, Path], left_to_right: Loaded) -> None:
    loaded = load(folders["dualmask"], "cpu")
    unmasking = load(folders["diffusion"], "cpu", family="diffusion")
    text = loaded.tokenizer.encode(TEXT * 40)
    task = generation.make_task([text[start : start + 20] for start in range(0, 320, 20)], 5, 20, limit=16)
    settings = WriterSettings(passes=[6], fill_steps=[2], steps=[4])
    contestants = [
        *edit.writers(loaded, settings),
        *lm.autoregressive_writers(left_to_right, settings),
        *lm.diffusion_writers(unmasking, settings),
    ]
    rows = generation.evaluate(contestants, task, [0.5, 1.0], loaded.tokenizer, judge_of(left_to_right))
    value = {method: {} for method in ("reference", "dualmask", "autoregressive", "diffusion")}
    for row in rows:
        assert row["lo"] <= row["value"] <= row["hi"]
        assert row["prompt"] == 5
        value[row["method"]][row["metric"], row.get("temperature")] = row["value"]
    figures = {"distinct1", "distinct2", "self_bleu", "repeated", "length_error", "perplexity"}
    assert {metric for metric, _ in value["reference"]} == figures
    passes = {method: value[method]["passes", None] for method in value if method != "reference"}
    assert passes == {"dualmask": 6, "autoregressive": 15, "diffusion": 4}
    blocks = {method: value[method]["block_passes", None] for method in passes}
    assert blocks == {"dualmask": 6 + 3, "autoregressive": 15 * 2, "diffusion": 4 * 2}  # counting costs DualMask rounds
    assert value["autoregressive"]["speedup_vs_ar", None] == 1
    for method in passes:
        assert {metric for metric, temperature in value[method] if temperature == 1.0} == figures
        assert value[method]["length_error", 1.0] == 0
    assert value["autoregressive"]["distinct2", 1.0] > value["autoregressive"]["distinct2", 0.5]
    without_judge = generation.evaluate(contestants[:1], task, [1.0], loaded.tokenizer)
    assert not [row for row in without_judge if row["metric"] in ("perplexity", "speedup_vs_ar")]
    assert generation_report.table(rows, "").row_count == 4


def run(folders: dict[str, Path], *options: str) -> int:
    model = ("--model", str(folders["dualmask"]), "--data", str(folders["data"]))
    return command.run(["eval", "generation", *model, *options])


def test_the_command_writes_result_file_and_plot(
    folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    others = [word for name in ("ar", "diffusion", "scorer") for word in (f"--{name}", str(folders[name]))]
    small = ("--passes", "4", "--steps", "4", "--limit", "16", "--temperatures", "0.8,1.2", "--prompts", "8,0")
    files = ("--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png"))
    assert run(folders, *others, *small, *files) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["suite"] == "generation"
    assert report.find(result["rows"], metric="passes", method="diffusion", prompt=8)["value"] == 4
    assert report.find(result["rows"], metric="passes", method="autoregressive", prompt=0)["value"] == 30
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert "reference" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ar", "ar", "--scorer", "ar"), "a model must not score itself"),
        (("--ar", "diffusion"), "holds a model of the family diffusion; give one of the family autoregressive"),
        (("--temperatures", "warm"), "--temperatures warm: give numbers from 0 to 100"),
        (("--passes", "0"), "--passes 0"),
        (("--passes", "3", "--fill-steps", "4"), "give a number of passes"),
        (("--order", "left"), "order left: give random or confidence"),
        (("--length", "99"), "--length 99: give 2 to 30 tokens"),
        (("--prompts", "40"), "--prompts 40"),
        (("--limit", "3"), "(given: '3')"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    folders: dict[str, Path], capfd: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    given = [str(folders.get(option, option)) for option in options]
    assert run(folders, *given) == 2
    out, message = capfd.readouterr()
    assert out == ""
    assert message.count("\n") == 1
    assert words in message


def test_another_tokenizer_is_refused(
    folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer = make_tokenizer(tmp_path / "other.model", first=100)
    stranger = write_random_model(tmp_path / "ar", language_model_config("autoregressive"), tokenizer)
    assert run(folders, "--ar", str(stranger)) == 2
    assert "another tokenizer" in capfd.readouterr().err
