"""Cleans raw documents: from documentation markup to paragraphs of English prose. Works on text, before tokenisation.

``prose`` keeps complete sentences only; it drops code, doctests, tables, parameter lists, headings and links.
``plain`` keeps the text unchanged except for control characters and trailing blanks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

TEXT_BREAK = "\x1c"  # between the texts of one document, which do not run together: Unicode's separator of files
PARAGRAPH_BREAK = {"prose": "\n", "plain": "\n\n"}

_LINE_BREAKS = "\r\v\f\x85\u2028"  # Unicode's, beside the line feed
_LINE_BREAK = re.compile(f"\r\n|[{_LINE_BREAKS}]")
# scripts that put no space between words: Thai, Lao, Tibetan, Myanmar, Khmer, kana, Han with its extensions
_UNSPACED = re.compile(
    "[\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0f40-\u0fbc\u1000-\u109f\u1780-\u17d3\u3005-\u3007"
    "\u3041-\u309f\u30a1-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\ufeff\ufffd]")
_ASCII_CONTROL = bytes(byte for byte in range(128) if _CONTROL.match(chr(byte)))

# lines that begin a new block even without a blank line before them
_BULLET = re.compile(r"^(?:[-*+•]|\(?\d{1,2}[.)]|#\.)\s+")
_FIELD = re.compile(r"^[:@](?:\w+)(?: [^:]{1,60})?:\s*")  # :param x: …  @param x: …
_NAMED = re.compile(r"^`{0,2}\*{0,2}[\w.]+`{0,2}(?: ?\([^)]{1,60}\))?\s?:\s+(?=[A-Z])")  # Google style  name (type): …

_FENCE = re.compile(r"^(?:```|~~~)")
_DIRECTIVE = re.compile(r"^\.\. ?([\w-]+)::")
_PROSE_DIRECTIVES = {
    "note", "warning", "tip", "hint", "important", "caution", "attention", "seealso", "admonition", "rubric",
    "versionadded", "versionchanged", "deprecated",
}  # fmt: skip
_RULE = re.compile(r"^[\W_]{3,}$")  # ==== ---- ``` +---+ and the like
_COLUMNS = re.compile(r"\S {3,}\S|\|.*\||\t")

_MARKUP = [
    (re.compile(r":[\w:+.-]+:`([^`<]*?)\s*<[^`>]*>`"), r"\1"),  # :role:`text <target>`
    (re.compile(r":[\w:+.-]+:`~[^`]*?([^`.]+)`"), r"\1"),  # :role:`~module.name`
    (re.compile(r":[\w:+.-]+:`([^`]*)`"), r"\1"),
    (re.compile(r"`([^`<]*?)\s*<[^`>]*>`_{0,2}"), r"\1"),  # `text <link>`_
    (re.compile(r"!?\[([^\]\[]*)\]\([^)\s]*\)"), r"\1"),  # [text](link)
    (re.compile(r"``([^`]*)``"), r"\1"),
    (re.compile(r"`([^`]*)`_{0,2}"), r"\1"),
    (re.compile(r"(?<![\w*])\*{1,2}([^\s*](?:[^*]*[^\s*])?)\*{1,2}(?![\w*])"), r"\1"),
    (re.compile(r"\s*\[[#*\d][\w]*\]_?"), ""),  # footnotes
    (re.compile(r"::(?=\s|$)"), ":"),
    (re.compile(r"\\([*_`|])"), r"\1"),
    (re.compile(r"\s+"), " "),
]
# a comma or full stop that a lost word, italics or parentheses have left alone behind a space; not the dots of ". . ."
_SPACE_BEFORE_SIGN = re.compile(r"(?<=\w) (?=(?:[,;!?]|\.(?! ?\.))(?:[\s\"'”’]|$))", re.MULTILINE)
_SIGN_BEHIND_WORD = re.compile(r"(?<=\w)[,;!?.](?=\s|$)", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[a-z\d)\"'”][.!?])\s+(?=[\"'(“]?[A-Z])")
_SENTENCE = re.compile(r"^[\"'(“]?[A-Z].*\w.*[.!?:][\"')”]?$")
_NOT_PROSE = re.compile(r"https?:|www\.|[{}<>|=\\~^$]|--|\.\.|__|>>>|[/@#&%*]\S*[/@#&%*]")
_WORD = re.compile(r"^[\"'(“]*[A-Za-z]+(?:['’-][A-Za-z]+)*[\"')”]*[,.;:!?]*[\"')”]*$")


@dataclass
class _Block:
    indent: int
    lines: list[str]


def paragraphs(texts: Iterable[str], style: str) -> list[str]:
    """The cleaned paragraphs of a document that consists of ``texts``; ``style`` is ``prose`` or ``plain``."""
    cleaned: list[str] = []
    for text in texts:
        for part in text.split(TEXT_BREAK):
            part = _normalised(_with_line_feeds(part))
            cleaned += _prose(part.expandtabs()) if style == "prose" else _plain(part)
    return cleaned


def _with_line_feeds(text: str) -> str:
    if any(line_break in text for line_break in _LINE_BREAKS):  # many times as fast as the expression
        text = _LINE_BREAK.sub("\n", text)
    return text.replace("\u2029", "\n\n")


def _normalised(text: str) -> str:
    """NFC without control characters and lone surrogates."""
    if text.isascii():
        return text.encode().translate(None, _ASCII_CONTROL).decode()
    return _CONTROL.sub("", unicodedata.normalize("NFC", text)).encode("utf-8", "ignore").decode()


def count_words(text: str) -> int:
    """Words between spaces; of scripts that have no spaces between words each character counts as one."""
    if text.isascii():
        return len(text.split())
    spaced, characters = _UNSPACED.subn(" ", text)
    return len(spaced.split()) + characters


def has_words(paragraphs: Iterable[str], least: int) -> bool:
    """Whether there are at least so many words; counts no further."""
    found = 0
    for text in paragraphs:
        found += count_words(text)
        if found >= least:
            return True
    return found >= least


def _plain(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", text):
        lines = [line.rstrip() for line in block.split("\n")]
        if any(lines):
            yield "\n".join(lines).strip("\n")


def _prose(text: str) -> Iterator[str]:
    for block in _without_code(_blocks(_without_stray_spaces(text).split("\n"))):
        if sentences := [part for part in _sentences(block) if _is_prose(part)]:
            yield " ".join(sentences)


def _without_stray_spaces(text: str) -> str:
    """``text`` without spaces in front of signs, unless most signs stand apart: that is how such a text is written."""
    closed, found = _SPACE_BEFORE_SIGN.subn("", text)
    return closed if found <= len(_SIGN_BEHIND_WORD.findall(text)) else text


def _blocks(lines: Iterable[str]) -> Iterator[_Block]:
    """Runs of adjacent lines that can form one paragraph: no blank line, one indentation, one list item."""
    block = _Block(0, [])
    fenced = False
    for line in lines:
        stripped = line.strip()
        fenced ^= bool(_FENCE.match(stripped))
        is_rule = bool(_RULE.match(stripped))
        if fenced or not stripped or is_rule:
            is_heading = is_rule and len(block.lines) == 1
            if block.lines and not is_heading:
                yield block
            block = _Block(0, [])
            continue
        indent = len(line) - len(line.lstrip())
        begins = indent != block.indent or _BULLET.match(stripped) or _FIELD.match(stripped) or _NAMED.match(stripped)
        if block.lines and begins:
            yield block
            block = _Block(0, [])
        if not block.lines:
            # the continuation of a list item is indented like its text, not like its bullet
            indent += len(bullet.group()) if (bullet := _BULLET.match(stripped)) else 0
            block = _Block(indent, [])
        block.lines.append(stripped)
    if block.lines:
        yield block


def _without_code(blocks: Iterable[_Block]) -> Iterator[_Block]:
    """Drops literal blocks, code-like directives, doctests and tables."""
    code_deeper_than: int | None = None  # blocks indented more than this are code
    for block in blocks:
        if code_deeper_than is not None and block.indent > code_deeper_than:
            continue
        code_deeper_than = None
        directive = _DIRECTIVE.match(block.lines[0])
        if directive or block.lines[0].startswith(".. "):
            if not directive or directive[1] not in _PROSE_DIRECTIVES:
                code_deeper_than = block.indent
            continue
        if block.lines[-1].endswith("::"):
            code_deeper_than = block.indent
        if any(line.startswith(">>>") for line in block.lines):
            continue
        if sum(map(bool, map(_COLUMNS.search, block.lines))) * 2 > len(block.lines):
            continue
        yield block


def _sentences(block: _Block) -> list[str]:
    text = " ".join(block.lines)
    for marker in (_BULLET, _FIELD, _NAMED):
        text = marker.sub("", text, count=1)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return _SENTENCE_END.split(text.strip())


def _is_prose(sentence: str) -> bool:
    """Four words or more, from a capital to a full stop, almost all of them plain words."""
    if not _SENTENCE.match(sentence) or _NOT_PROSE.search(sentence):
        return False
    words = sentence.split(" ")
    plain = sum(map(bool, map(_WORD.match, words)))
    return 4 <= len(words) <= 100 and plain >= 0.8 * len(words)
