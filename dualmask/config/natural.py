"""Errors of words, as people make them: the keys of ``corruption.natural``. Pure."""

from __future__ import annotations

from pydantic import Field, model_validator

from dualmask.config.section import Section, Share, Weight


class NaturalErrors(Section):
    """A share of the corrupted texts has errors of words instead of errors of tokens. The weights of the kinds are
    near to what learners' texts have, in per cent."""

    share: Share = Field(0.0, description="of the corrupted texts; the others have errors of tokens; needs lemminflect")
    rate_low: Share = Field(0.02, description="least share of the words at which something is wrong")
    rate_high: Share = Field(0.15, description="greatest share of the words at which something is wrong")
    article: Weight = Field(14.0, description="left out, put in, a for the, a for an")
    preposition: Weight = Field(10.0, description="another one, left out, put in")
    number: Weight = Field(9.0, description="singular and plural of a noun")
    verb_form: Weight = Field(10.0, description="another form than the word in front asks for; no auxiliary, no `to`")
    tense: Weight = Field(4.0, description="past and present")
    agreement: Weight = Field(10.0, description="subject and verb: he go, they is")
    pronoun: Weight = Field(3.0, description="I for me, they for them")
    spelling: Weight = Field(18.0, description="misspelt by the keys and by the sound")
    word: Weight = Field(7.0, description="confused words, homophones, adjective and adverb, many and much")
    punctuation: Weight = Field(9.0, description="comma, end of sentence, apostrophe")
    capital: Weight = Field(3.0, description="small at the beginning of a sentence or in a name; a capital elsewhere")
    missing: Weight = Field(4.0, description="a pronoun, an auxiliary, a conjunction left out")
    doubled: Weight = Field(2.0, description="a word twice")
    space: Weight = Field(2.0, description="two words written as one, one as two")
    order: Weight = Field(1.0, description="an adverb behind the word that it belongs in front of")

    @property
    def weights(self) -> dict[str, float]:
        """By kind."""
        return {kind: getattr(self, kind) for kind in KINDS}

    @model_validator(mode="after")
    def _consistent(self) -> NaturalErrors:
        if self.rate_low > self.rate_high:
            raise ValueError(f"rate_low={self.rate_low} exceeds rate_high={self.rate_high}")
        if self.share > 0 and not any(self.weights.values()):
            raise ValueError(f"share={self.share}, but {', '.join(KINDS)} are all 0: give one of them a weight")
        return self


KINDS = tuple(name for name in NaturalErrors.model_fields if name not in ("share", "rate_low", "rate_high"))
