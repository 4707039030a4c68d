"""Text in, text and trace out: nothing is lost, and the trace tells the whole story."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmask.core.sampling import GREEDY, SamplingParams
from dualmask.families.edit.infer.request import TextRequest
from dualmask.families.edit.infer.text import TextResult, Writer
from dualmask.families.edit.infer.trace import RoundTrace, replay
from dualmask.families.edit.stopping import Reason

ODD = (
    "",
    " ",
    "\n\n",
    "Plain words, one after another.",
    "  spaces   in  odd places \t and\ttabs ",
    "The literal [MASK] and <pad> <bos> <0x41> [PRED] </s> stay.",
    "Emoji 😀👩‍👩‍👧 and flags 🇫🇷, accents é e\u0301, 日本語, العربية, \u2581 and \ufffd and \x00.",
    "日本語だけの文章です。" * 12,
    "The value of the expression is the object that it names. " * 40,
)
HOT = SamplingParams(temperature=1.0, place_temperature=1.0, seed=3)


@pytest.mark.parametrize("text", ODD)
def test_nothing_to_do_returns_the_input(writer: Writer, text: str) -> None:
    requests = [TextRequest(text, "edit", options={"keep_rate": 1.0, "growth": 0, "rounds": 3})]
    requests += [TextRequest(text, "summarize", options={"keep_rate": 1.0})]
    requests += [TextRequest(text, "generate", options={"growth": 0})]
    assert [result.output for result in writer.run(requests)] == [text] * 3


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=80))
def test_any_unicode_text_survives_an_edit_that_deletes_nothing(writer: Writer, text: str) -> None:
    (result,) = writer.run([TextRequest(text, "edit", options={"keep_rate": 1.0, "growth": 0})])
    assert result.output == text


def skeleton(draft: str, done: RoundTrace) -> str:
    kept, at = [], 0
    for start, end, gone in done["deleted"]:
        assert draft[start:end] == gone
        kept.append(draft[at:start])
        at = end
    return "".join(kept) + draft[at:]


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("sampling", [GREEDY, HOT])
def test_the_trace_leads_from_input_to_output(writer: Writer, text: str, sampling: SamplingParams) -> None:
    requests = [
        TextRequest(text, "edit", sampling=sampling, options={"keep_rate": 0.6, "rounds": 3}),
        TextRequest(text, "summarize", sampling=sampling, options={"keep_rate": 0.5, "rounds": 2}),
        TextRequest(text, "generate", sampling=sampling, options={"growth": 12, "rounds": 3}),
        TextRequest(text, "edit", sampling=sampling, options={"rounds": 2}),
        TextRequest(text, "auto", sampling=sampling, options={"rounds": 3, "max_growth": 20}),
    ]
    for request, result in zip(requests, writer.run(requests), strict=True):
        trace = json.loads(json.dumps(result.trace))
        assert list(trace) == ["input", "output", "mode", "rounds_used", "stopped", "seed", "trace"]
        assert (trace["input"], trace["output"], trace["mode"]) == (text, result.output, request.mode)
        assert trace["rounds_used"] == len(trace["trace"])
        low, high = {"generate": (0.0, 0.0), "auto": (0.0, 1.0)}.get(request.mode, (1.0, 1.0))
        assert all(low <= done["gate"] <= high for done in trace["trace"])
        assert trace["stopped"] in [reason.word for reason in Reason]
        assert replay(text, trace["trace"]) == result.output
        draft = text
        for done in trace["trace"]:
            after = replay(draft, [done])
            for fill in done["filled"]:
                assert after[fill["position"] :].startswith(fill["text"])
                assert 0 <= fill["confidence"] <= 1
            assert sum(count for _, count in done["inserted"]) == len(done["filled"])
            if request.mode == "summarize":
                assert skeleton(draft, done) == after
            draft = after


def test_characters_outside_the_vocabulary_are_deleted_whole_or_not_at_all(writer: Writer) -> None:
    text = "😀é日" * 30  # 4, 2 and 3 bytes; each character counts as one token
    results = writer.run([TextRequest(text, "summarize", options={"keep_rate": rate / 10}) for rate in range(11)])
    lengths = [len(result.output) for result in results]
    assert all(set(result.output) <= set(text) for result in results)
    assert lengths == list(range(0, 91, 9))


def test_empty_text_works_in_every_mode(writer: Writer) -> None:
    edit, summary, infill, written = writer.run(
        [
            TextRequest("", "edit", options={"rounds": 3}),
            TextRequest("", "summarize", options={"keep_rate": 0.5}),
            TextRequest("", "infill"),
            TextRequest("", "generate", options={"growth": 10}),
        ]
    )
    assert (edit.output, summary.output, infill.output) == ("", "", "")
    assert written.output


@pytest.mark.parametrize("prompt", ["The name of a", "The name,", "The name\n"])
def test_a_generation_continues_the_text_with_a_whole_word(writer: Writer, prompt: str) -> None:
    results = writer.run(
        [
            TextRequest(prompt, "generate", sampling=replace(HOT, seed=seed), options={"growth": 14, "rounds": 4})
            for seed in range(10)
        ]
    )
    for result in results:
        assert result.output.startswith(prompt)
        assert len(writer.tokenizer.encode(result.output)) > len(writer.tokenizer.encode(prompt))
        assert result.output.removeprefix(prompt).startswith(" ") or prompt.endswith("\n")


def test_a_generation_may_write_anywhere(writer: Writer) -> None:
    options = {"growth": 20, "rounds": 2, "anywhere": True}
    results = writer.run(
        [TextRequest("The name of a", "generate", sampling=replace(HOT, seed=n), options=options) for n in range(10)]
    )
    assert not all(result.output.startswith("The name of a") for result in results)


def test_locked_words_and_spans_stay(writer: Writer) -> None:
    text = "The name is bound, the name é is 日本 found, the name 😀 is lost."
    for seed in range(20):
        known = {"options": {"keep_rate": 0.2, "rounds": 2}, "sampling": replace(HOT, seed=seed)}
        (words,) = writer.run([TextRequest(text, "edit", lock_texts=["the name", "日本"], **known)])
        assert words.output.count("the name") >= 2
        assert "日本" in words.output
        (span,) = writer.run([TextRequest(text, "edit", lock_spans=[(20, 35)], **known)])
        assert text[20:35] in span.output


def fillings(result: TextResult, *around: str) -> list[str]:
    """What was written between the fixed parts of the text."""
    rest, written = result.output, []
    assert rest.startswith(around[0])
    rest = rest[len(around[0]) :]
    for part in around[1:]:
        position = rest.index(part) if part else len(rest)
        written.append(rest[:position])
        rest = rest[position + len(part) :]
    assert rest == ""
    return written


@pytest.mark.parametrize("sampling", [GREEDY, HOT])
def test_infill_keeps_everything_around_the_holes(writer: Writer, sampling: SamplingParams) -> None:
    text = "Return the {} of the house, un{}able."
    (result,) = writer.run([TextRequest(text, "infill", hole="{}", tokens=3, sampling=sampling, options={"rounds": 2})])
    first, second = fillings(result, "Return the", " of the house, un", "able.")
    assert first.startswith(" ")
    assert second
    assert sum(len(done["filled"]) for done in result.trace["trace"]) == 6
    assert replay("Return the of the house, unable.", result.trace["trace"]) == result.output


def test_marks_side_by_side_are_one_hole_and_ends_can_be_holes(writer: Writer) -> None:
    (result,) = writer.run([TextRequest("______ is ___", "infill", tokens=2)])
    assert " is" in result.output
    assert sum(len(done["filled"]) for done in result.trace["trace"]) == 4
    (two,) = writer.run([TextRequest("___ ___", "infill", tokens=2)])
    assert sum(len(done["filled"]) for done in two.trace["trace"]) == 4
    (blank,) = writer.run([TextRequest("___", "infill", tokens=20)])
    assert sum(len(done["filled"]) for done in blank.trace["trace"]) == 20


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"text": "no hole", "mode": "infill"}, "no hole"),
        ({"text": "x ___", "mode": "infill", "hole": ""}, "hole"),
        ({"text": "x ___", "mode": "infill", "tokens": 0}, "tokens of a hole 0"),
        ({"text": "abc", "mode": "edit", "lock_texts": [""]}, "lock"),
        ({"text": "abc", "mode": "edit", "lock_spans": [(2, 9)]}, "lock span 2:9"),
        ({"text": "abc", "mode": "edit", "options": {"keep_rate": 1.5}}, "keep rate 1.5"),
    ],
)
def test_impossible_requests_are_refused(request_: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TextRequest(**request_)
