import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.dedup import first_seen, near_duplicates, paragraph_hashes, signature

WORDS = [f"word{number}" for number in range(2000)]


def document(seed: int, changes: int = 0) -> str:
    generator = np.random.default_rng(seed)
    words = generator.choice(WORDS, 400)
    words[np.linspace(10, 390, changes, dtype=int)] = "other"
    return " ".join(words)


def marked(texts: list[str], threshold: float = 0.8) -> list[bool]:
    return near_duplicates(np.stack([signature(text) for text in texts]), threshold).tolist()


def test_only_later_copies_are_marked() -> None:
    texts = [document(1), document(2), document(1), document(2, changes=5), document(3)]
    assert marked(texts) == [False, False, True, True, False]


def test_similarity_is_about_the_jaccard_index_of_shingles() -> None:
    for changes in (5, 20, 60):
        left, right = document(1), document(1, changes)
        shingles = [{tuple(text.split()[at : at + 5]) for at in range(396)} for text in (left, right)]
        jaccard = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
        estimate = (signature(left) == signature(right)).mean()
        assert abs(estimate - jaccard) < 0.2


def test_a_document_like_a_dropped_one_but_not_like_a_kept_one_stays() -> None:
    kept, between, far = document(1), document(1, changes=6), document(1, changes=60)
    assert marked([kept, between, far]) == [False, True, False]


def test_short_and_empty_texts() -> None:
    assert marked(["", "one", "one", "two words"]) == [False, False, True, False]
    assert near_duplicates(np.empty((0, 64), np.uint64), 0.8).tolist() == []


@given(st.lists(st.lists(st.sampled_from("abcdef"))))
def test_each_paragraph_survives_exactly_once(documents: list[list[str]]) -> None:
    masks = first_seen([paragraph_hashes(texts) for texts in documents])
    kept = [
        text for texts, mask in zip(documents, masks, strict=True) for text, new in zip(texts, mask, strict=True) if new
    ]
    flat = [text for texts in documents for text in texts]
    assert kept == list(dict.fromkeys(flat))


def test_capitals_and_spacing_make_no_difference() -> None:
    assert paragraph_hashes(["The  same\ntext."]) == paragraph_hashes(["the same text."])
