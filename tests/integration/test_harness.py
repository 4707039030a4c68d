"""EleutherAI's lm-evaluation-harness measures our models: on tasks of local files, and with our own suites' figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
import yaml
from tiny_model import CONFIG, language_model_config, span_config, write_random_model

from dualmask.core.sampling import GREEDY
from dualmask.core.tokenizer import BOS_ID, EOS_ID, MASK_ID
from dualmask.evaluation import likelihood, report
from dualmask.evaluation.likelihood import Passage, Scorer
from dualmask.inference import autoregressive
from dualmask.inference.loading import load

pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install 'dualmask[harness]'")

TEXTS = ["The value of a name is the object that it is bound to. " * 6, "A list.", "ü€😀"]
CHOICES = [" one", " the object", " the list"]
QUESTIONS = ["The value of a name is", "", "A name is bound " * 30 + "to"]  # the last is longer than the models read
EXACT = {"autoregressive": language_model_config("autoregressive"), "spanfusion": span_config()}
INEXACT = {"diffusion": language_model_config("diffusion"), "dualmask": CONFIG}
TASKS: dict[str, dict[str, Any]] = {
    "local_bits": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
    "local_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": CHOICES,
        "doc_to_target": 1,
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    },
    "local_writing": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": " the object",
        "generation_kwargs": {"until": ["e"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
    },
}


@pytest.fixture(scope="module")
def folders(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, tokenizer = tmp_path_factory.mktemp("harness"), model_folder / "tokenizer.model"
    return {name: write_random_model(root / name, config, tokenizer) for name, config in (EXACT | INEXACT).items()}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks whose documents lie beside them."""
    root = tmp_path_factory.mktemp("tasks")
    rows = {"local_bits": [{"text": text} for text in TEXTS]}
    for name, task in TASKS.items():
        data = root / f"{name}.jsonl"
        documents = rows.get(name, [{"question": question} for question in QUESTIONS])
        data.write_text("".join(json.dumps(document) + "\n" for document in documents))
        where = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
        (root / f"{name}.yaml").write_text(yaml.safe_dump({"task": name} | where | task))
    return root


def harness(folder: Path, tasks: Path, out: Path, *names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dualmask.serving.harness", "--model", "dualmask", "--tasks", ",".join(names)]
    command += ["--model_args", f"pretrained={folder},gate=verified", "--batch_size", "2"]
    command += ["--include_path", str(tasks), "--output_path", str(out), "--log_samples"]
    offline = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "cache")}
    environment = tiny.environment() | offline | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("family", EXACT)
def test_its_figures_are_ours(family: str, folders: dict[str, Path], tasks: Path, tmp_path: Path) -> None:
    done = harness(folders[family], tasks, tmp_path, *TASKS)
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = load(folders[family], "cpu", family=family)
    scorer, tokenizer, most = Scorer.of(loaded.model), loaded.tokenizer, loaded.config.max_length

    result = json.loads(next(tmp_path.glob("*/results_*.json")).read_text())
    rows = likelihood.evaluate(scorer, TEXTS, tokenizer, most)
    bits = report.find(rows, metric="bits_per_byte")["value"]
    assert result["results"]["local_bits"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-6)

    for question, sample in zip(QUESTIONS, samples(tmp_path, "local_choice"), strict=True):
        given = tokenizer.encode(question)
        ids = [tokenizer.encode(question + choice)[len(given) :] for choice in CHOICES]
        starts = [given[max(0, len(given) + len(each) - (most - 1)) :] for each in ids]
        passages = [Passage([*start, *each], len(start)) for start, each in zip(starts, ids, strict=True)]
        found = [float(log_prob) for log_prob, _ in sample["filtered_resps"]]
        assert found == pytest.approx((-scorer.score(passages)[:, 0]).tolist(), rel=1e-6)

    prompts = [tokenizer.encode(question)[-(most - 2 - 8) :] for question in QUESTIONS]
    written = autoregressive.write(loaded.model, prompts, tokens=8, sampling=[GREEDY] * 3)
    texts = [tokenizer.decode(ids).split("e")[0] for ids in written]
    assert [sample["resps"][0][0] for sample in samples(tmp_path, "local_writing")] == texts


def samples(out: Path, task: str) -> list[dict[str, Any]]:
    (file,) = out.glob(f"*/samples_{task}_*.jsonl")
    return sorted(map(json.loads, file.read_text().splitlines()), key=lambda sample: sample["doc_id"])


def test_what_cannot_be_measured_is_one_line(folders: dict[str, Path], tasks: Path, tmp_path: Path) -> None:
    done = harness(folders["diffusion"], tasks, tmp_path, "local_bits")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "loglikelihood_rolling: a model of the family diffusion has no exact likelihood" in done.stderr


def requests(*arguments: tuple[Any, ...]) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=each) for each in arguments]


@pytest.mark.parametrize("family", [*EXACT, *INEXACT])
def test_all_families_write_whatever_the_batch(family: str, folders: dict[str, Path]) -> None:
    from dualmask.serving.harness import HarnessModel

    warm = {"max_gen_toks": 6, "do_sample": True, "temperature": 1.0}
    asked = [(question, arguments) for question in QUESTIONS for arguments in ({"until": ["zz"]}, warm)]
    one, three = (HarnessModel(folders[family], "cpu", size, steps=4) for size in (1, "3"))
    texts = one.generate_until(requests(*asked))
    assert texts == three.generate_until(requests(*asked))
    assert any(texts)
    assert texts != HarnessModel(folders[family], "cpu", "auto", steps=4, seed=9).generate_until(requests(*asked))


@pytest.mark.parametrize("family", EXACT)
def test_likelihoods_do_not_depend_on_the_batch(family: str, folders: dict[str, Path]) -> None:
    from dualmask.serving.harness import HarnessModel

    asked = requests(*((question, choice) for question in QUESTIONS for choice in CHOICES))
    one, many = (dict(enumerate(HarnessModel(folders[family], "cpu", n).loglikelihood(asked))) for n in (1, 64))
    for number, (log_prob, greedy) in one.items():
        assert many[number] == (pytest.approx(log_prob, rel=1e-5), greedy)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"top_k": 3}, "generate_until: top_k: known are do_sample, max_gen_toks, temperature, until"),
        ({"max_gen_toks": 31}, "generate_until: max_gen_toks=31: the model writes 1 to 30"),
    ],
)
def test_what_our_models_do_not_know_is_refused(
    folders: dict[str, Path], arguments: dict[str, Any], words: str
) -> None:
    from dualmask.serving.harness import HarnessModel

    with pytest.raises(ValueError, match=words):
        HarnessModel(folders["autoregressive"], "cpu").generate_until(requests(("A", arguments)))


def test_diffusion_gives_a_bound_where_one_is_asked_for(folders: dict[str, Path]) -> None:
    from dualmask.serving.harness import HarnessModel

    asked = requests(*((text,) for text in [*TEXTS, "x"]))
    one, many = (
        HarnessModel(folders["diffusion"], "cpu", size, bound_draws=3).loglikelihood_rolling(asked) for size in (1, 64)
    )
    assert one == pytest.approx(many, rel=1e-5)
    loaded = load(folders["diffusion"], "cpu", family="diffusion")
    (index,) = loaded.tokenizer.encode("x")
    logits = loaded.model.fill(torch.tensor([[BOS_ID, MASK_ID, EOS_ID]]), torch.tensor([3]), torch.tensor([1]))
    assert one[-1] == pytest.approx(logits.log_softmax(-1)[0, index].item(), rel=1e-5)  # one token: exact
    with pytest.raises(ValueError, match="autoregressive has no bound"):
        HarnessModel(folders["autoregressive"], "cpu", bound_draws=3).loglikelihood_rolling(asked)


@pytest.mark.parametrize("family", INEXACT)
def test_no_likelihood_is_made_up(family: str, folders: dict[str, Path]) -> None:
    from dualmask.serving.harness import HarnessModel

    with pytest.raises(ValueError, match=f"{family} has no exact likelihood.*generate_until.* can be run"):
        HarnessModel(folders[family], "cpu").loglikelihood(requests(("A", " list")))
