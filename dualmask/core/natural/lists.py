"""Lists that the errors of this folder need beside those of ``core.english``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from dualmask.core import english


def companions(sets: Iterable[list[str]]) -> Mapping[str, list[str]]:
    """The other words of the sets of each word; one of several sets as often as it is there."""
    found: dict[str, list[str]] = defaultdict(list)
    for alike in sets:
        for word in alike:
            found[word] += [other for other in alike if other != word]
    return found


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES = _words("a an the")
MODALS = _words("can could may might must shall should will would can't couldn't won't wouldn't shouldn't mustn't")
DO = _words("do does did don't doesn't didn't")
HAVE = _words("have has had having haven't hasn't hadn't")
BE = _words("is are was were be been being am isn't aren't wasn't weren't")
PREPOSITIONS = frozenset(word for alike in english.PREPOSITIONS for word in alike) - _words("as like while when")
POSSESSIVES = _words("my your his her its our their whose")
DETERMINERS = (
    ARTICLES | POSSESSIVES | _words("this that these those some any no every each many much few several all both")
)
NUMBERS = _words("one two three four five six seven eight nine ten twelve hundred thousand")
SINGULAR = _words("he she it this that everyone everybody someone somebody nobody nothing everything something")
PLURAL = _words("i you we they these those people")
RELATIVE = _words("who which that")
ADVERBS = _words("always never often also only just usually sometimes really probably already still even ever not")
JOINING = _words("and but or because when if that so while")

AGREEING = {
    "is": ["are"], "are": ["is"], "was": ["were"], "were": ["was"], "am": ["is", "are"], "has": ["have"],
    "have": ["has"], "does": ["do"], "do": ["does"], "isn't": ["aren't"], "aren't": ["isn't"], "wasn't": ["weren't"],
    "weren't": ["wasn't"], "hasn't": ["haven't"], "haven't": ["hasn't"], "doesn't": ["don't"], "don't": ["doesn't"],
}  # fmt: skip
# verbs with an object of their own, and the preposition that learners put in front of it
TRANSITIVE = {
    "answer": "to", "approach": "to", "contact": "with", "contain": "of", "describe": "about", "discuss": "about",
    "emphasize": "on", "enter": "into", "explain": "about", "face": "with", "influence": "on", "join": "to",
    "leave": "from", "marry": "with", "mention": "about", "obey": "to", "reach": "to", "request": "for",
    "resemble": "to", "stress": "on", "study": "about", "tell": "to", "visit": "to",
}  # fmt: skip
# where writers part a word
COMPOUNDS = {
    first + second: f"{first} {second}"
    for first, seconds in {
        "any": "body more one thing way where", "some": "body how one thing times where", "every": "body day one thing",
        "no": "body thing where", "my": "self", "him": "self", "her": "self", "it": "self", "them": "selves",
        "our": "selves", "your": "self", "in": "side to stead", "out": "side", "with": "in out", "how": "ever",
        "when": "ever", "what": "ever", "where": "ever as", "al": "though ready ways so most", "to": "day gether",
        "an": "other", "can": "not", "may": "be", "mean": "while", "more": "over", "never": "theless", "there": "fore",
        "under": "stand", "up": "on", "house": "hold", "news": "paper", "class": "room", "book": "store", "week": "end",
        "over": "come all", "through": "out", "be": "side come cause", "for": "ever", "home": "work",
    }.items()
    for second in seconds.split()
}  # fmt: skip
# pairs that writers join
JOINED = frozenset(
    """
    a lot|in front|of course|at least|as well|in fact|each other|any more|every time|no one|all right|in order|
    high school|even though|may be|some times|a part|a while|in case|too much|so much|to be|have to|for example
    """.replace("\n", "")
    .replace("    ", "")
    .strip()
    .split("|")
)

PREPOSITIONS_ALIKE = companions(english.PREPOSITIONS)
PRONOUNS_ALIKE = companions(english.PRONOUNS)
CLASSES_ALIKE = companions(english.OTHER_CLASSES)
CONFUSED = companions(english.CONFUSABLES)
SOUNDING_ALIKE = companions(english.HOMOPHONES)
FUNCTION_WORDS = frozenset(
    english.OMITTED | english.UNINFLECTED | {word for alike in english.CLASSES for word in alike}
) | MODALS | DO | HAVE | BE | NUMBERS | ADVERBS  # fmt: skip
OMITTED = frozenset(english.OMITTED) - ARTICLES - PREPOSITIONS | _words("because if when also there do does")
