from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import arrays, dedup, signatures, similar
from data_pipeline.dedup import Place, mark, seen_before, similar_pairs
from data_pipeline.signatures import keys_of, similarity

WORDS = [f"word{number}" for number in range(2000)]


def document(seed: int, changes: int = 0) -> str:
    generator = np.random.default_rng(seed)
    words = generator.choice(WORDS, 400)
    words[np.linspace(10, 390, changes, dtype=int)] = "other"
    return " ".join(words)


def marked(texts: list[str], threshold: float = 0.8) -> list[bool]:
    _, keys, sketches = keys_of([[text] for text in texts])
    documents = np.repeat(np.arange(len(keys)), keys.shape[1])
    dropped = np.zeros(len(texts), np.uint8)
    mark(similar_pairs(keys.ravel(), documents, lambda wanted: sketches[wanted], threshold), dropped)
    return dropped.astype(bool).tolist()


@given(st.text(st.characters(max_codepoint=127), min_size=1, max_size=40))
def test_words_of_ascii_are_hashed_as_other_words(text: str) -> None:
    """Spacing and capitals make no difference in either."""
    alone, with_others = keys_of([[f"A{text}"]]), keys_of([[" ".join(f"A{text}".upper().split())]])
    assert [of_one.tolist() for of_one in alone[0]] == [of_one.tolist() for of_one in with_others[0]]
    assert signatures._lower_words(f"A{text} é") == [*signatures._lower_words(f"A{text}"), "é".encode()]


def test_only_later_copies_are_marked() -> None:
    texts = [document(1), document(2), document(1), document(2, changes=5), document(3)]
    assert marked(texts) == [False, False, True, True, False]


def test_similarity_is_about_the_jaccard_index_of_shingles() -> None:
    for changes in (5, 20, 60):
        left, right = document(1), document(1, changes)
        shingles = [{tuple(text.split()[at : at + 5]) for at in range(396)} for text in (left, right)]
        jaccard = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
        _, _, sketches = keys_of([[left], [right]])
        (estimate,) = similarity(sketches, np.array([0]), np.array([1]))
        assert abs(estimate - jaccard) < 0.1


def test_a_document_like_a_dropped_one_but_not_like_a_kept_one_stays() -> None:
    kept, between, far = document(1), document(1, changes=6), document(1, changes=60)
    assert marked([kept, between, far]) == [False, True, False]


def test_short_and_empty_texts() -> None:
    assert marked(["", "one", "one", "two words"]) == [False, False, True, False]


@given(st.lists(st.lists(st.sampled_from("abcdef"))))
def test_each_paragraph_survives_exactly_once(documents: list[list[str]]) -> None:
    flat = [text for texts in documents for text in texts]
    hashes, _, _ = keys_of([flat])
    repeated = seen_before(hashes[0], np.arange(len(flat)))
    kept = [text for number, text in enumerate(flat) if number not in set(repeated.tolist())]
    assert kept == list(dict.fromkeys(flat))


def test_capitals_and_spacing_make_no_difference() -> None:
    (hashes,), _, _ = keys_of([["The  same\ntext.", "the same text."]])
    assert hashes[0] == hashes[1]


def test_documents_of_one_template_are_compared_with_few_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share keys with all others; a copy of one of them is found all the same, by the hash of its text."""
    template = document(1).split()
    texts = []
    for number in range(300):
        words = list(template)
        words[::12] = document(number + 2).split()[::12]
        texts.append(" ".join(words))
    compared = []
    monkeypatch.setattr(dedup, "similarity", lambda *pairs: compared.append(len(pairs[1])) or similarity(*pairs))
    assert marked([*texts, texts[250]]) == [False] * 300 + [True]
    assert sum(compared) <= 16 * 17 * 301


def test_ranges_of_keys_find_what_one_range_finds(tmp_path: Path) -> None:
    """Blocks on disk and any number of ranges: the pairs of all together."""
    texts = [document(number % 40, changes=number // 40) for number in range(120)]
    places = []
    for block in range(3):
        part = [[text] for text in texts[block * 40 : block * 40 + 40]]
        signatures.write_keys(tmp_path, f"block{block}", part)
        places.append(Place(f"block{block}", block * 40, block * 40))
    places.append(Place("", 120, 120))
    found = []
    for parts in (1, 5):
        for part in range(parts):
            dedup.pair_range(tmp_path, f"{part}of{parts}", part, parts, tmp_path, places, 0.8)
        dedup.resolve(tmp_path, f"dropped{parts}", [tmp_path / f"{part}of{parts}.npy" for part in range(parts)], 120)
        found.append(np.load(tmp_path / f"dropped{parts}.npy").astype(bool).tolist())
    assert found[0] == found[1] == marked(texts)
    assert sum(found[0]) == 80


def test_why_a_document_is_dropped() -> None:
    _, keys, sketches = keys_of([[document(1)], [document(1)], [document(1, changes=2)]])
    documents = np.repeat(np.arange(3), keys.shape[1])
    pairs = similar_pairs(keys.ravel(), documents, lambda wanted: sketches[wanted], 0.8)
    dropped = np.zeros(3, np.uint8)
    mark(pairs, dropped)
    assert [dedup.REASONS[code] for code in dropped] == ["", "duplicate documents", "near-duplicate documents"]


def test_groups_of_near_duplicates_are_counted_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents 0 and 3 are kept of three and two; 5 is an exact copy, which is no near-duplicate."""
    monkeypatch.setattr(dedup, "_RESOLVED", 2)
    near, exact = dedup._NEAR, dedup._EXACT
    pairs = np.array([(1, 0, near), (2, 0, near), (4, 3, near), (5, 3, exact), (6, 4, near)]).T
    arrays.save(tmp_path / "pairs.npy", pairs)
    dedup.resolve(tmp_path, "dropped", [tmp_path / "pairs.npy"], 7)
    for name, paragraphs in (("a", ["same one", "same two", "same three"]), ("b", ["four", "five", "four", "six"])):
        rows = [{"id": text, "file": "f", "start": 0, "stop": 1, "paragraphs": [text, "end"]} for text in paragraphs]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet", row_group_size=2)
    places = [dedup.Place("a", 0, 0), dedup.Place("b", 3, 6), dedup.Place("", 7, 14)]
    two, three = similar.describe(tmp_path, "groups", tmp_path, places)["groups"]
    assert (two["from"], two["to"], two["groups"], two["documents"]) == (2, 2, 1, 2)
    assert [document["text"] for document in two["pair"]] == ["four\nend", "five\nend"]
    assert (three["from"], three["to"], three["groups"], three["documents"]) == (3, 4, 1, 3)
    assert [document["id"] for document in three["pair"]] == ["same one", "same two"]
