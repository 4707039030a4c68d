from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.decontaminate import shares_a_run, word_runs, write_runs
from data_pipeline.sources import SourceError
from dualmask.config.data import DecontaminateConfig

QUESTION = "What is the name of the river that flows through the old town and into the sea?"


@given(
    st.lists(st.sampled_from("abcd"), max_size=30), st.lists(st.sampled_from("abcd"), max_size=30), st.integers(3, 5)
)
def test_a_run_is_shared_or_not(left: list[str], right: list[str], length: int) -> None:
    runs = [{tuple(words[at : at + length]) for at in range(len(words) - length + 1)} for words in (left, right)]
    known = np.unique(word_runs(" ".join(left), length))
    assert shares_a_run(" ".join(right), known, length) == bool(runs[0] & runs[1])


def test_capitals_and_punctuation_hide_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"question": QUESTION}))
    config = DecontaminateConfig(paths=(str(tmp_path / "x.jsonl"),), text_field="question")
    write_runs(tmp_path / "runs.npy", config)
    known = np.load(tmp_path / "runs.npy")
    assert shares_a_run(f"He asked: \u201c{QUESTION.upper()}\u201d", known, config.ngram)
    assert not shares_a_run("The name of the river is long. " * 5, known, config.ngram)


def test_without_evaluation_files_nothing_is_shared(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs.npy", DecontaminateConfig())
    assert not shares_a_run(QUESTION, np.load(tmp_path / "runs.npy"), 3)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"decontaminate\.paths: '.*none' matches no"):
        write_runs(tmp_path / "runs.npy", DecontaminateConfig(paths=(str(tmp_path / "none"),)))
