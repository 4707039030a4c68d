"""`dualmask eval everyday`: ordinary English sentences with one ordinary error, and what a method makes of them.

The cases stand beside this file (``cases``): a kind of error, a wrong sentence and the right one; and clean sentences
of which one word is doubled. Half of them read like documentation, half like daily life.

auto          the model, as ``dualmask auto`` runs it
keep          nothing is done
doubled_rule  of two equal neighbouring words the second is dropped: ten lines of code without a model
"""

# N sentences

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Levenshtein

from dualmask.core.words import words_of
from dualmask.evaluation import statistics
from dualmask.evaluation.statistics import Row
from dualmask.families.edit.infer.request import TextRequest
from dualmask.families.edit.infer.text import Writer

CASES = Path(__file__).parent / "cases" / "editing_cases.tsv"
SENTENCES = Path(__file__).parent / "cases" / "doubled_words.txt"
HEADER = ["kind", "wrong", "right"]
DOUBLED, CLEAN = "doubled word", "clean"  # kinds of the sentences that are made here
SEED = 0

Corrector = Callable[[Sequence[str]], list[str]]


@dataclass(frozen=True)
class Case:
    kind: str
    wrong: str
    right: str


@dataclass(frozen=True)
class Outcome:
    """What became of one case. nearer: by how many words the output is nearer to the right sentence than the wrong one
    is; below 0: farther from it."""

    case: Case
    output: str
    nearer: int

    @property
    def exact(self) -> bool:
        return self.output == self.case.right

    @property
    def better(self) -> bool:
        return self.exact or self.nearer > 0

    @property
    def worse(self) -> bool:
        return self.nearer < 0

    @property
    def unchanged(self) -> bool:
        return self.output == self.case.wrong

    @property
    def mark(self) -> str:
        """One word for people; ``other``: changed, neither nearer nor farther."""
        if self.case.kind == CLEAN:
            return "same" if self.exact else "worse"
        names = ("exact", self.exact), ("better", self.better), ("worse", self.worse), ("same", self.unchanged)
        return next((name for name, holds in names if holds), "other")


FIGURES = ("better", "exact", "worse", "unchanged")


def evaluate(
    correctors: Mapping[str, Corrector], cases: Sequence[Case], sentences: Sequence[str]
) -> tuple[list[Row], dict[str, list[Outcome]]]:
    """All rows, and by method the outcomes: of the cases, the clean sentences and those with a doubled word."""
    clean = [Case(CLEAN, case.right, case.right) for case in cases]
    doubled = double_words(sentences)
    rows: list[Row] = []
    outcomes: dict[str, list[Outcome]] = {}
    for method, corrector in correctors.items():
        tried = [*cases, *clean, *doubled]
        results = corrector([case.wrong for case in tried])
        every = [outcome_of(case, result) for case, result in zip(tried, results, strict=True)]
        parts = every[: len(cases)], every[len(cases) : -len(doubled)], every[-len(doubled) :]
        rows += method_rows(method, *parts)
        outcomes[method] = every
    return rows, outcomes


def method_rows(
    method: str, mended: Sequence[Outcome], clean: Sequence[Outcome], doubled: Sequence[Outcome]
) -> list[Row]:
    """better: exactly right, or fewer words away from the right sentence than the wrong one is; worse: more words away;
    clean_untouched: share of the right sentences that come back as they are; doubled_mended: share of doubled words."""
    rows = [_share(figure, mended, figure, method=method) for figure in FIGURES]
    for kind in dict.fromkeys(outcome.case.kind for outcome in mended):
        part = [outcome for outcome in mended if outcome.case.kind == kind]
        rows += [_share(figure, part, figure, method=method, kind=kind) for figure in FIGURES]
    rows.append(_share("clean_untouched", clean, "exact", method=method))
    rows.append(_share("doubled_mended", doubled, "exact", method=method))
    return rows


def outcome_of(case: Case, output: str) -> Outcome:
    right = units(case.right)
    before, after = Levenshtein.distance(units(case.wrong), right), Levenshtein.distance(units(output), right)
    return Outcome(case, output, before - after)


def units(text: str) -> list[str]:
    """What word distances count: words, and each other character, with the blank in front if there is one; so a space
    too many or too few is a difference."""
    found, at = [], 0
    for start, end, _ in [*words_of(text), (len(text), len(text), "")]:
        found += re.findall(r"\s?\S", text[at:start])
        blank = " " if text[max(start - 1, 0) : start].isspace() else ""
        found.append(blank + text[start:end])
        at = end
    return [re.sub(r"\s", " ", unit) if number else unit.lstrip() for number, unit in enumerate(found[:-1])]


def model(writer: Writer, rounds: int) -> Corrector:
    def auto(texts: Sequence[str]) -> list[str]:
        requests = [TextRequest(text, "auto", options={"rounds": rounds}) for text in texts]
        return [result.output for result in writer.run(requests)]

    return auto


def keep(texts: Sequence[str]) -> list[str]:
    return list(texts)


def doubled_rule(texts: Sequence[str]) -> list[str]:
    return [_drop_doubled(text) for text in texts]


def _drop_doubled(text: str) -> str:
    kept, at = [], 0
    for (_, left_end, left), (start, end, right) in pairwise(words_of(text)):
        if left.lower() == right.lower() and text[left_end:start].isspace():
            kept.append(text[at:left_end])
            at = end
    return "".join(kept) + text[at:]


def double_words(sentences: Sequence[str], seed: int = SEED) -> list[Case]:
    """One random word of each sentence twice; not the first one, whose capital would betray which copy is older."""
    draw = random.Random(seed)
    cases = []
    for right in sentences:
        _, end, word = draw.choice(words_of(right)[1:])
        cases.append(Case(DOUBLED, f"{right[:end]} {word}{right[end:]}", right))
    return cases


def read_cases(file: Path) -> list[Case]:
    """Raises ValueError that names the line which is not a case."""
    header, *lines = _lines("--data", file)
    if header.split("\t") != HEADER:
        raise ValueError(f"--data {file} line 1: {header!r}; give the columns {', '.join(HEADER)}, with tabs between")
    cases = []
    for number, line in enumerate(lines, 2):
        cells = line.split("\t")
        if len(cells) != len(HEADER) or not all(cells) or cells[1] == cells[2]:
            raise ValueError(f"--data {file} line {number}: {line!r}; give a kind, a wrong and another, right sentence")
        cases.append(Case(*cells))
    if not cases:
        raise ValueError(f"--data {file}: no cases; give a kind, a wrong and a right sentence a line")
    return cases


def read_sentences(file: Path) -> list[str]:
    """Raises ValueError that names the line which has no word to double."""
    lines = _lines("--sentences", file)
    for number, line in enumerate(lines, 1):
        if len(words_of(line)) < 2:
            raise ValueError(f"--sentences {file} line {number}: {line!r}; give a sentence of two words or more")
    return lines


def _lines(option: str, file: Path) -> list[str]:
    if not file.is_file():
        raise ValueError(f"{option} {file}: no such file; leave {option} out for the cases that come with dualmask")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{option} {file} is not UTF-8: {error}; convert it, for instance with iconv") from None
    if not lines:
        raise ValueError(f"{option} {file} is empty; leave {option} out for the cases that come with dualmask")
    return lines


def _share(metric: str, outcomes: Sequence[Outcome], figure: str, **dimensions: object) -> Row:
    columns = np.array([(getattr(outcome, figure), 1) for outcome in outcomes], dtype=float)
    return statistics.row(metric, statistics.ratio, columns, **dimensions)
