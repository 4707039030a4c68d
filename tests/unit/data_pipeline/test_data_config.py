from pathlib import Path

import pytest

from dualmask.config.data import DataBuildConfig, MixtureBuildConfig
from dualmask.config.load import ConfigError, dump, load_build, load_yaml_model

CONFIGS = sorted(Path(__file__).parents[3].joinpath("configs", "data").glob("*.yaml"))
MIXTURE = next(file for file in CONFIGS if file.name == "mixture.yaml")


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_every_shipped_file_loads_and_survives_a_round_trip(file: Path, tmp_path: Path) -> None:
    config = load_build(file)
    (tmp_path / "copy.yaml").write_text(dump(config))
    assert load_build(tmp_path / "copy.yaml") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("source.kind=web", r"source\.kind = 'web'"),
        ("source.paths=[x]", r"source\.paths has no meaning for kind=embedded"),
        ("source.kind=text", r"source\.paths is empty, kind=text needs"),
        ("split.dev=0.99", r"split\.dev=0\.99 \+ split\.test=0\.02 leave nothing"),
        ("max_length=4", r"max_length = 4: should be greater than or equal to 16"),
        ("tokenizer.vocab=4", r"tokenizer\.vocab is not a key; did you mean tokenizer\.vocab_size\?"),
        ("source.document_start=x", r"source\.document_start has no meaning for kind=embedded"),
        ("source.kind=jsonl source.paths=[x] source.document_start=(", r"document_start: '\(' is no regular"),
        ("source.kind=huggingface source.paths=[x]", r"source\.repository is missing, kind=huggingface needs"),
        ("source.repository=me/mine", r"source\.repository has no meaning for kind=embedded"),
        ("tokenizer.model=x tokenizer.name=gpt2", r"tokenizer\.model=x excludes tokenizer\.name=gpt2: remove one"),
        ("dedup.near_duplicate=0", r"dedup\.near_duplicate = 0: should be greater than 0"),
    ],
)
def test_bad_values_are_one_line_with_the_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load_yaml_model(CONFIGS[0], DataBuildConfig, override.split())
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sources=[]", r"sources = \[\]: .*at least 1 item"),
        ("sources.1.name=prose", r"two are called 'prose': give each a name of its own"),
        ("sources.1.name=a/b", r"sources\.1\.name = 'a/b'"),
        ("sources.1.weight=0", r"sources\.1\.weight = 0: should be greater than 0"),
        ("sources.1.source.paths=[]", r"source\.paths is empty, kind=jsonl needs"),
        ("source.kind=text", r"source is not a key; did you mean sources\?"),
    ],
)
def test_bad_mixtures_are_one_line_with_the_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load_build(MIXTURE, [override])
    assert len(str(raised.value).splitlines()) == 1


def test_sections_of_a_source_stand_before_those_of_all() -> None:
    changes = ["sources.1.clean={min_words: 3}", "clean.min_words=7", "seed=5"]
    prose, manuals = load_yaml_model(MIXTURE, MixtureBuildConfig, changes).corpora(Path("shared.model"))
    assert (prose.clean.min_words, manuals.clean.min_words) == (7, 3)
    assert (prose.output.name, manuals.output.name) == ("prose", "manuals")
    for corpus in (prose, manuals):
        assert (corpus.seed, corpus.tokenizer.model, corpus.tokenizer.vocab_size) == (5, Path("shared.model"), 8192)
