"""`dualmask eval gec`: sentences with people's corrections, and how near a method comes to these.

auto             the model, as ``dualmask auto`` runs it
auto_tuned       the same at other thresholds: those with the best word F0.5 on the other half of the sentences
keep             nothing is done
doubled_rule     of two equal neighbouring words the second is dropped (``everyday``)
speller          each unknown word becomes the nearest known one (``speller``)
"""

# N sentences, R references of a sentence

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Levenshtein

from dualmask.evaluation import gleu, statistics
from dualmask.evaluation.statistics import Row
from dualmask.families.edit.evaluate import edits
from dualmask.families.edit.infer.apart import ClosedUp

Words = tuple[str, ...]
WordEdits = set[tuple[int, int, Words]]  # source words [start, end) became these


@dataclass(frozen=True)
class Sentence:
    """A wrong sentence and what people made of it; words and marks apart by blanks."""

    text: str
    references: tuple[str, ...]

    @property
    def words(self) -> Words:
        return tuple(self.text.split())

    @property
    def corrections(self) -> list[Words]:
        return [tuple(reference.split()) for reference in self.references]


def evaluate(outputs: Mapping[str, Sequence[str]], sentences: Sequence[Sentence]) -> list[Row]:
    """The figures of each method, from what it made of the sentences; gleu_gain: over ``keep``."""
    rows: list[Row] = []
    before = gleu_columns([sentence.text for sentence in sentences], sentences)
    for method, texts in outputs.items():
        counts = np.array([agreement(*pair) for pair in zip(sentences, texts, strict=True)], dtype=float)
        figures: dict[str, tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]] = {
            "f05": (edits.f05, counts),
            "precision": (edits.precision, counts),
            "recall": (edits.recall, counts),
            "gleu": (gleu.gleu, after := gleu_columns(texts, sentences)),
            "gleu_gain": (_gain, np.hstack([before, after])),
        }
        nearer = np.array([gained(*pair) for pair in zip(sentences, texts, strict=True)])
        for name, holds in (("better", nearer > 0), ("worse", nearer < 0)):
            figures[name] = (statistics.ratio, np.stack([holds, np.ones(len(holds))], 1))
        rows += [statistics.row(name, figure, columns, method=method) for name, (figure, columns) in figures.items()]
    return rows


def gleu_columns(texts: Sequence[str], sentences: Sequence[Sentence]) -> np.ndarray:
    hypotheses = [words_like(text, sentence) for text, sentence in zip(texts, sentences, strict=True)]
    sources, references = zip(*((sentence.words, sentence.corrections) for sentence in sentences), strict=True)
    return gleu.columns(sources, hypotheses, references)


def _gain(sums: np.ndarray) -> np.ndarray:
    half = sums.shape[-1] // 2
    return gleu.gleu(sums[..., half:]) - gleu.gleu(sums[..., :half])


def agreement(sentence: Sentence, text: str) -> tuple[int, int, int]:
    """Numbers of edits: made and needed, made, needed; by the reference with the best F0.5, as in the M2 scorer."""
    made = word_edits(sentence.words, words_like(text, sentence))
    needed = [word_edits(sentence.words, correction) for correction in sentence.corrections]
    counts = [(len(made & each), len(made), len(each)) for each in needed]
    return max(counts, key=lambda count: (_f05(count), count[0], -count[2]))


def _f05(count: tuple[int, int, int]) -> float:
    right, made, needed = count
    return 1.25 * right / (made + 0.25 * needed) if made or needed else 1.0


def word_edits(source: Words, result: Words) -> WordEdits:
    """The edits of one least-cost alignment of words; what is changed without a word between is one edit."""
    found = set()
    codes = Levenshtein.opcodes(source, result)
    for equal, run in itertools.groupby(codes, key=lambda code: code.tag == "equal"):
        if not equal:
            first, *_ = changed = list(run)
            written = result[first.dest_start : changed[-1].dest_end]
            found.add((first.src_start, changed[-1].src_end, written))
    return found


def gained(sentence: Sentence, text: str) -> int:
    """By how many words the text is nearer to its nearest reference than the sentence is; below 0: farther."""
    before, after = (
        min(Levenshtein.distance(words, correction) for correction in sentence.corrections)
        for words in (sentence.words, words_like(text, sentence))
    )
    return before - after


def words_like(text: str, sentence: Sentence) -> Words:
    """The words of a text, marks apart as in the sentences: a mark that is written against a new word is set apart."""
    return tuple(ClosedUp(text, frozenset(sentence.words)).set_apart(text).split())


def read_sentences(file: Path, limit: int | None = None) -> list[Sentence]:
    """All of them, or ``limit`` spread over the file. Raises ValueError naming the line that is none."""
    if not file.is_file():
        raise ValueError(f'--data {file}: no such file; give a jsonl file with a "text" and "references" a line')
    sentences = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            tree = json.loads(line)
            sentences.append(Sentence(tree["text"], tuple(tree["references"])))
            right = sentences[-1].words and sentences[-1].references and all(sentences[-1].corrections)
        except (ValueError, KeyError, TypeError, AttributeError):
            right = False
        if not right:
            raise ValueError(f'--data {file} line {number}: give {{"text": "…", "references": ["…", …]}}, none empty')
    if len(sentences) < 2:
        raise ValueError(f"--data {file}: {len(sentences)} sentences; thresholds for each half need 2 or more")
    if limit is not None and limit < len(sentences):
        sentences = [sentences[number * len(sentences) // limit] for number in range(limit)]
    return sentences
