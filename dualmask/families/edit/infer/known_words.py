"""What is known of a language's words, as far as the texts that are mended need it."""

from __future__ import annotations

from dualmask.core.tokenizer import Tokenizer
from dualmask.core.words import WordList
from dualmask.families.edit.infer.approval import WordCheck
from dualmask.families.edit.infer.spelling import Respelling
from dualmask.families.edit.infer.wording import Rewording


class KnownWords:
    """The words that edits may write: of ``check`` all edits, of ``respell`` those that an unknown word may be, of
    ``reword`` those that a known one may be."""

    def __init__(self, tokenizer: Tokenizer, words: WordList) -> None:
        self.check = WordCheck(tokenizer, words)
        self.respell, self.reword = Respelling(tokenizer, words), Rewording(tokenizer)
