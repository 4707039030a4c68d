"""Every example of the README, of ``--help`` and of the report of `make train` runs.

Here with models that nobody trained: what they write says nothing. What the README shows as written by the trained
model is compared with such a one in ``test_quickstart_examples``.
"""

from __future__ import annotations

import io
import itertools
import json
import shlex
from pathlib import Path

import examples
import pytest
from tiny_model import CONFIG, VOCABULARY, language_model_config, write_random_model
from tiny_span import PARTS

from dualmask.config.load import load_run
from dualmask.config.schema import Family
from dualmask.core.tokenizer import Tokenizer
from launcher import command, quickstart

REPORT = quickstart.where_to_look(load_run(examples.ROOT / "configs/quickstart.yaml"))
ALL = dict.fromkeys([*examples.of_the_readme(), *examples.of_the_help(), *examples.commands(REPORT)])
FOLDER = "a built folder: tests/integration/test_data_folder.py"
NEEDS = {"data build": "a corpus: tests/integration/test_data_build.py", "export": "a run: test_resume.py"}
NEEDS |= dict.fromkeys(["data stats", "data inspect", "data repair"], FOLDER)
LENGTH = {"max_length": 64}  # of all models: some are compared
SENTENCES = ["The function returns the name of the file.", "If the list is empty, an error is raised."]


@pytest.fixture(scope="module")
def place(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all that the examples name exists."""
    here = tmp_path_factory.mktemp("examples")
    tokenizer = model_folder / "tokenizer.model"
    (here / "runs").mkdir()
    (here / "data" / "embedded").mkdir(parents=True)
    for name in ("runs/quickstart", "M", "runs/mine", "runs/english"):
        write_random_model(here / name, CONFIG.model_copy(update=LENGTH), tokenizer)
    for name in ("runs/spanfusion_small", "S"):
        write_random_model(here / name, PARTS.model_copy(update=LENGTH), tokenizer)
    families: dict[str, Family] = {"autoregressive": "autoregressive", "diffusion": "diffusion"}
    for seed, (name, family) in enumerate({**families, "scorer": "autoregressive"}.items()):
        config = language_model_config(family).model_copy(update=LENGTH)
        write_random_model(here / "runs" / name, config, tokenizer, seed)
    text = "\n".join([*SENTENCES, "It returns a list of names."])
    lines = [json.dumps({"text": f"{text}\n{number} {text}"}) for number in range(24)]
    for name in ("data/embedded/test.jsonl", "F.jsonl", "letters.jsonl"):
        (here / name).write_text("\n".join(lines) + "\n")
    for name in ("notes.txt", "draft.txt", "drafts.txt", "article.txt"):
        (here / name).write_text(text + "\n")
    learner = json.dumps({"text": "It return a names .", "references": ["It returns a name .", "It returns names ."]})
    for name in ("learners.jsonl", "jfleg-dev.jsonl"):
        (here / name).write_text(f"{learner}\n" * 4)
    (here / "my_cases.tsv").write_text("kind\twrong\tright\nverb\tIt return.\tIt returns.\n")
    assert Tokenizer(tokenizer).vocab_size == VOCABULARY
    return here


def test_there_are_examples() -> None:
    assert len(examples.of_the_readme()) >= 8
    assert len(examples.of_the_help()) >= 15


@pytest.mark.parametrize("example", ALL)
def test_it_runs(example: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(example)
    if any(example.startswith(f"dualmask {name}") for name in NEEDS):
        pytest.skip("needs " + NEEDS[next(name for name in NEEDS if name in example)])
    monkeypatch.chdir(place)
    if words[0] == "cat":
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path(words[1]).read_bytes())))
        words = words[words.index("|") + 1 :]
    if ">" in words:
        words = words[: words.index(">")]
    sizes = {"editing": ["--limit", "8"], "adaptive": ["--limit", "8"], "generation": ["--limit", "16"]}
    small = sizes.get(words[2], []) if words[1] == "eval" else []
    assert command.run([*words[1:], *small]) == 0, capfd.readouterr().err
    named = [after for word, after in itertools.pairwise(words) if word in ("--trace", "--plot", "--json")]
    assert all(Path(name).stat().st_size for name in named if "." in name)
