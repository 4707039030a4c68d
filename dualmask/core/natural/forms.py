"""The forms of English words, by the tables of lemminflect (MIT)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from dualmask.core.natural.lists import FUNCTION_WORDS

MISSING = "corruption.natural needs lemminflect: pip install 'dualmask[english]', or set its share to 0"
BASES = ("VB", "VBP")


@dataclass(frozen=True)
class Forms:
    """What a word may be, as a word on its own.

    number     the other number of a noun; "" if it is no noun, or has none
    plural     it is the plural of a noun
    verb       form by Penn tag (VB VBP VBZ VBG VBD VBN), if it is a form of a verb
    tags       those of the verb that are this word
    adjective  it may be one; compared: its comparative
    """

    number: str = ""
    plural: bool = False
    verb: Mapping[str, str] | None = None
    tags: frozenset[str] = frozenset()
    adjective: bool = False
    comparative: bool = False

    @property
    def lemma(self) -> str:
        return self.verb["VB"] if self.verb else ""


NO_FORMS = Forms()


def check() -> None:
    """Raises ValueError where lemminflect is missing."""
    try:
        import lemminflect  # noqa: F401
    except ModuleNotFoundError:
        raise ValueError(MISSING) from None


@lru_cache(maxsize=1 << 17)
def forms(word: str) -> Forms:
    """Of a word in lower case; of function words there are none."""
    if (len(word) < 3 and word != "go") or word in FUNCTION_WORDS or not word.isalpha():
        return NO_FORMS
    import lemminflect

    lemmas = lemminflect.getAllLemmas(word)
    number, plural = _number(word, lemmas.get("NOUN", ()))
    verb = _verb(word, lemmas.get("VERB", ()))
    adjective = "ADJ" in lemmas
    return Forms(
        number=number,
        plural=plural,
        verb=verb or None,
        tags=frozenset(tag for tag, form in verb.items() if form == word),
        adjective=adjective,
        comparative=adjective and word in lemminflect.getInflection(lemmas["ADJ"][0], "JJR", inflect_oov=False),
    )


@lru_cache(maxsize=1 << 17)
def is_word(text: str) -> bool:
    """Whether the tables know it: function words are not in them all."""
    import lemminflect

    return text in FUNCTION_WORDS or bool(lemminflect.getAllLemmas(text))


def _number(word: str, lemmas: tuple[str, ...]) -> tuple[str, bool]:
    import lemminflect

    for lemma in lemmas:
        tree = lemminflect.getAllInflections(lemma, "NOUN")
        singular, plurals = tree.get("NN", ("",))[0], tree.get("NNS", ())
        if word == singular:
            return next((form for form in plurals if form != word), ""), False
        if word in plurals:
            return singular, True
    return "", False


def _verb(word: str, lemmas: tuple[str, ...]) -> dict[str, str]:
    import lemminflect

    for lemma in lemmas:
        tree = lemminflect.getAllInflections(lemma, "VERB")
        if {"VB", "VBZ", "VBG", "VBD"} <= tree.keys():
            past = word if word in tree["VBD"] else tree["VBD"][0]
            participle = tree.get("VBN", (past,))
            verb = {tag: tree[tag][0] for tag in ("VB", "VBZ", "VBG")}
            return verb | {"VBP": verb["VB"], "VBD": past, "VBN": word if word in participle else participle[0]}
    return {}
