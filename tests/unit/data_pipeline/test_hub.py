"""The hub's own client against a hub on this machine: what it downloads and caches, and what is said when it fails."""

import io
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from local_hub import local_hub
from tiny_bpe import PIECES, make_tokenizer_json

from data_pipeline.sources import SourceError, read, units
from data_pipeline.vocabulary import VocabularyError, describe, find
from dualmask.config.data import SourceConfig, TokenizerConfig
from dualmask.core.tokenizer import SPECIALS, Tokenizer

Point = Callable[[str], None]

NOBODY = "http://127.0.0.1:9"  # the port "discard": refused at once
ARTICLES = {
    "train-00000-of-00002": [
        "",
        " = First = \n",
        "",
        " Its text . \n",
        " = = Section = = \n",
        " = Second = \n",
        " x \n",
    ],
    "train-00001-of-00002": [" and on \n", " = Third = \n"],
    "validation-00000-of-00001": [" = Fourth = \n", " y \n"],
}
WIKITEXT = SourceConfig(
    kind="huggingface",
    repository="Salesforce/wikitext",
    paths=("raw/train-*.parquet",),
    dev_paths=("raw/validation-*",),
    document_start="^ = [^=].* = $",
)
GPT2 = TokenizerConfig(name="gpt2")


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = make_tokenizer_json(tmp_path_factory.mktemp("bpe"))
    return (folder / "tokenizer.json").read_bytes()


def parquet(rows: list[str]) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table({"text": rows}), content, row_group_size=2)
    return content.getvalue()


def test_a_tokenizer_by_its_name_and_later_without_the_hub(bpe: bytes, hub_client: Point) -> None:
    """The name gpt2 is an old one: the hub redirects it. Nothing but the one file is downloaded."""
    gpt2 = {"models/openai-community/gpt2": {"tokenizer.json": bpe, "model.safetensors": b"large"}}
    with local_hub(gpt2, moved={"gpt2": "openai-community/gpt2"}) as hub:
        hub_client(hub.address)
        file = find(GPT2)
        assert "api/models/gpt2/revision/main" in hub.requests
        assert not [path for path in hub.requests if "safetensors" in path]
    assert file is not None
    assert Tokenizer(file).vocab_size == PIECES + len(SPECIALS)
    assert find(GPT2) == file  # nobody listens any more: from the cache
    assert describe(GPT2, file) == "gpt2, of the Hugging Face hub"


def test_a_data_set_of_lines_becomes_documents(hub_client: Point) -> None:
    files = {f"raw/{name}.parquet": parquet(rows) for name, rows in ARTICLES.items()}
    files |= {"raw/test-00000.parquet": b"not asked for", "README.md": b"neither"}
    with local_hub({"datasets/Salesforce/wikitext": files}) as hub:
        hub_client(hub.address)
        wikitext_units = units(WIKITEXT)
        downloads = {path.rpartition("/")[2] for path in hub.requests if "resolve" in path}
    assert downloads == {f"{name}.parquet" for name in ARTICLES}
    assert [(unit.name, unit.split) for unit in wikitext_units] == [
        ("raw/validation-00000-of-00001.parquet", "dev"),
        ("raw/train-00000-of-00002.parquet", "train"),
        ("raw/train-00001-of-00002.parquet", "train"),
    ]
    documents = [document for unit in wikitext_units for document in read(unit, WIKITEXT)]
    assert [(document.id.rpartition("/")[2], document.text) for document in documents] == [
        ("validation-00000-of-00001.parquet:1", " = Fourth = \n y "),
        ("train-00000-of-00002.parquet:1", ""),
        ("train-00000-of-00002.parquet:2", " = First = \n\n Its text . \n = = Section = = "),
        ("train-00000-of-00002.parquet:6", " = Second = \n x "),
        ("train-00001-of-00002.parquet:1", " and on "),
        ("train-00001-of-00002.parquet:2", " = Third = "),
    ]


def test_json_lines_of_a_data_set(hub_client: Point) -> None:
    with local_hub({"datasets/me/mine": {"x.jsonl": b'{"text": "One."}', "y.txt": b"Two."}}) as hub:
        hub_client(hub.address)
        source = SourceConfig(kind="huggingface", repository="me/mine", paths=("*.jsonl", "y.*"))
        assert [doc.text for unit in units(source) for doc in read(unit, source)] == ["One.", "Two."]
        absent = SourceConfig(kind="huggingface", repository="me/mine", paths=("*.jsonl",), dev_paths=("dev/*",))
        with pytest.raises(SourceError, match=r"source\.dev_paths: 'dev/\*' matches no .* file"):
            units(absent)


def one_line(error: pytest.ExceptionInfo[ValueError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_nobody_there(hub_client: Point, caplog: pytest.LogCaptureFixture) -> None:
    hub_client(NOBODY)
    with pytest.raises(SourceError) as refused:
        units(WIKITEXT)
    one_line(refused, "source.repository=Salesforce/wikitext", f"{NOBODY} cannot be reached", "set HF_ENDPOINT")
    with pytest.raises(VocabularyError) as refused:
        find(GPT2)
    one_line(refused, "tokenizer.name=gpt2", f"{NOBODY} cannot be reached", "tokenizer.if_unreachable=train")
    with caplog.at_level(logging.WARNING, "data_pipeline"):
        trained = GPT2.model_copy(update={"if_unreachable": "train"})
        assert find(trained) is None
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("data_pipeline")]
    assert "tokenizer.name=gpt2" in line
    assert "using one trained on this text instead" in line
    assert describe(trained, None).endswith("as gpt2 could not be reached")


def test_offline_by_decision(hub_client: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_client(NOBODY)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError) as refused:
        units(WIKITEXT)
    one_line(refused, "offline mode is enabled", "HF_HUB_OFFLINE")


@pytest.mark.parametrize("name", ["nobody/nothing", "not a name"])
def test_a_wrong_name_is_an_error_even_where_training_would_do(name: str, hub_client: Point) -> None:
    with local_hub({}) as hub:
        hub_client(hub.address)
        with pytest.raises(VocabularyError) as refused:
            find(TokenizerConfig(name=name, if_unreachable="train"))
        one_line(refused, f"tokenizer.name={name}", "offers no such model")
        assert "if_unreachable" not in str(refused.value)


def test_a_model_without_a_tokenizer_json(hub_client: Point) -> None:
    with local_hub({"models/me/mine": {"vocab.txt": b"x"}}) as hub:
        hub_client(hub.address)
        with pytest.raises(VocabularyError, match=r"tokenizer\.name=me/mine: has no tokenizer\.json"):
            find(TokenizerConfig(name="me/mine", if_unreachable="train"))


def test_a_tokenizer_of_a_local_file_or_folder(bpe: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(bpe)
    file = find(TokenizerConfig(model=tmp_path))
    assert file == find(TokenizerConfig(model=tmp_path / "tokenizer.json")) == tmp_path / "tokenizer.json"
    shutil.move(tmp_path / "tokenizer.json", tmp_path / "tokenizer.model")  # as in a data folder
    assert find(TokenizerConfig(model=tmp_path)) == tmp_path / "tokenizer.model"
    (tmp_path / "empty").mkdir()
    with pytest.raises(VocabularyError, match=r"tokenizer\.model=.*empty: has no tokenizer\.json"):
        find(TokenizerConfig(model=tmp_path / "empty"))
