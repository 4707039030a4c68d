"""Exact likelihoods: of passages and whole documents, by every family that has one; bits per byte as a person asks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tiny_model import language_model_config, span_config, write_random_model

from dualmask.core.batch import Batch
from dualmask.core.tokenizer import BOS_ID, EOS_ID
from dualmask.evaluation import likelihood, report
from dualmask.evaluation.likelihood import Passage, Scorer
from dualmask.inference.loading import Loaded, load
from launcher import command

TEXTS = ["The value of a name is the object that it is bound to. " * 6, "A list.", "ü€😀", ""]


@pytest.fixture(scope="module", params=["autoregressive", "spanfusion"])
def folder(request: pytest.FixtureRequest, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family = request.param
    config = span_config() if family == "spanfusion" else language_model_config(family)
    return write_random_model(tmp_path_factory.mktemp("exact") / family, config, model_folder / "tokenizer.model")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(folder, "cpu", family=folder.name)


def nats_of_all(loaded: Loaded, ids: list[int]) -> list[float]:
    """As training sees the text, EOS behind it."""
    batch = Batch(torch.tensor([[BOS_ID, *ids, EOS_ID]]), torch.tensor([len(ids) + 2]), torch.tensor([0]))
    model = loaded.model
    out = model(batch) if loaded.config.family == "autoregressive" else model.next_tokens(batch, model.read(batch))
    return out.loss[:-1].tolist()


def test_only_what_is_judged_counts(loaded: Loaded) -> None:
    long, short = (loaded.tokenizer.encode(text) for text in ("The value of a name is an object.", "A list."))
    passages = [Passage(long, 4), Passage(short), Passage(long, len(long)), Passage([])]
    scores = Scorer.of(loaded.model).score(passages)
    assert scores[:, 0] == pytest.approx([sum(nats_of_all(loaded, long)[4:]), sum(nats_of_all(loaded, short)), 0, 0])
    assert scores[:, 1].tolist() == [len(long) - 4, len(short), 0, 0]
    assert scores == pytest.approx(Scorer.of(loaded.model, at_once=1).score(passages), rel=1e-6)


def test_the_likeliest_continuation_is_known(loaded: Loaded) -> None:
    model, given = loaded.model, loaded.tokenizer.encode("The value of")
    position = torch.arange(len(given) + 1)[None].float()
    tokens = torch.tensor([[BOS_ID, *given]])
    best = int(model.next_logits(tokens, position, torch.ones_like(tokens, dtype=torch.bool))[0].argmax())
    scores = Scorer.of(model).score([Passage([*given, best], len(given)), Passage([*given, best - 1], len(given))])
    assert scores[:, 2].tolist() == [1, 0]


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 14, 20])
def test_windows_judge_each_id_once_with_as_much_context_as_there_is(size: int) -> None:
    cut = list(likelihood.windows(range(size), 7))
    assert [index for passage in cut for index in passage.ids[passage.first :]] == [*range(size)]
    assert all(len(passage.ids) == min(7, size) for passage in cut)


def test_bits_of_a_document_are_those_of_its_windows(loaded: Loaded) -> None:
    rows = likelihood.evaluate(Scorer.of(loaded.model), TEXTS, loaded.tokenizer, loaded.config.max_length)
    nats = tokens = 0.0
    for ids in map(loaded.tokenizer.encode, TEXTS):
        for passage in likelihood.windows(ids, loaded.config.max_length - 1):
            nats += sum(nats_of_all(loaded, list(passage.ids))[passage.first :])
        tokens += len(ids)
    bits = report.find(rows, metric="bits_per_byte")
    assert bits["value"] == pytest.approx(nats / math.log(2) / sum(len(text.encode()) for text in TEXTS))
    assert report.find(rows, metric="perplexity")["value"] == pytest.approx(math.exp(nats / tokens))
    assert bits["lo"] <= bits["value"] <= bits["hi"]
    assert bits["n"] == len(TEXTS)


def test_the_command(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "texts.jsonl", tmp_path / "out.json"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    assert command.run(["eval", "bits", "--model", str(folder), "--data", str(data), "--json", str(out)]) == 0
    assert {row["metric"] for row in json.loads(out.read_text())["rows"]} == {"bits_per_byte", "perplexity"}
    assert "bits_per_byte" in capfd.readouterr().out


def test_a_family_without_a_likelihood_is_refused(
    model_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "A list."}\n')
    given = ["--model", str(model_folder), "--data", str(tmp_path / "texts.jsonl")]
    assert command.run(["eval", "bits", *given]) == 2
    assert "a model of the family dualmask has no exact likelihood" in capfd.readouterr().err
