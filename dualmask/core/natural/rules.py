"""All kinds of natural errors, and the rules by which each of them is made."""

from __future__ import annotations

from collections.abc import Mapping

from dualmask.core.natural import grammar, spelling, surface
from dualmask.core.natural.rule import Rule

RULES: Mapping[str, tuple[Rule, ...]] = {
    "article": (
        Rule(5.0, grammar.is_article, grammar.article_left_out),
        Rule(1.5, grammar.is_article, grammar.article_other),
        Rule(1.0, grammar.is_article, grammar.article_sound),
        Rule(2.5, grammar.may_need_no_article, grammar.article_more),
    ),
    "preposition": (
        Rule(5.0, grammar.is_preposition, grammar.preposition_other),
        Rule(3.5, grammar.is_preposition, grammar.preposition_left_out),
        Rule(1.5, grammar.has_its_own_object, grammar.preposition_more),
    ),
    "number": (Rule(1.0, grammar.has_number, grammar.number_other),),
    "verb_form": (
        Rule(6.0, grammar.is_verb, grammar.verb_form),
        Rule(2.0, grammar.is_auxiliary, grammar.auxiliary_left_out),
        Rule(2.0, grammar.asks_for_infinitive, grammar.infinitive),
    ),
    "tense": (Rule(1.0, grammar.is_verb, grammar.tense),),
    "agreement": (
        Rule(1.0, grammar.agrees, grammar.agreement),
        Rule(1.0, grammar.is_verb, grammar.third_person),
    ),
    "pronoun": (Rule(1.0, grammar.is_pronoun, grammar.pronoun),),
    "spelling": (
        Rule(1.0, spelling.may_be_misspelt, spelling.by_keys),
        Rule(1.2, spelling.may_be_misspelt, spelling.by_sound),
    ),
    "word": (
        Rule(3.0, surface.is_confusable, surface.confusable),
        Rule(2.0, surface.has_class, surface.of_class),
        Rule(2.0, surface.has_manner, surface.manner),
        Rule(1.5, surface.has_homophone, surface.homophone),
    ),
    "punctuation": (
        Rule(4.0, surface.has_comma, surface.comma_left_out),
        Rule(1.5, surface.has_end, surface.end_left_out),
        Rule(1.0, surface.has_end, surface.comma_for_end),
        Rule(1.5, surface.has_no_mark, surface.comma_more),
        Rule(1.5, surface.has_apostrophe, surface.apostrophe_left_out),
    ),
    "capital": (
        Rule(3.0, surface.has_capital, surface.capital_left_out),
        Rule(1.0, surface.has_no_capital, surface.capital_more),
    ),
    "missing": (Rule(1.0, surface.may_be_missing, surface.missing),),
    "doubled": (Rule(1.0, surface.has_no_mark, surface.doubled),),
    "space": (
        Rule(1.0, surface.has_no_mark, surface.joined),
        Rule(1.0, surface.is_compound, surface.parted),
    ),
    "order": (Rule(1.0, surface.is_adverb, surface.swapped),),
}
