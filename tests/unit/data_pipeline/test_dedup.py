import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.dedup import keys_of, mark, seen_before, similar_pairs, similarity

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
