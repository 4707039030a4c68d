"""Every key of a data build's YAML file (``dualmask data build``): default, meaning, bounds. Pure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dualmask.config.section import FileName, Positive, Section, Share


class SourceConfig(Section):
    """Where the raw text comes from. Paths are files, folders (searched for the kind's files), globs, or addresses of
    such (s3://, gs://, hf://, https://, whatever fsspec knows). Any file may be packed (.gz .zst .xz .bz2).

    kind: ``embedded`` docstrings of this Python; ``jsonl`` one object a line (.jsonl .ndjson); ``csv`` a row each, the
    first names the fields (.csv .tsv); ``parquet`` a row each; ``arrow`` a row each, also the folders of Hugging Face's
    ``save_to_disk`` (.arrow .feather); ``webdataset`` a sample each, its .txt or a field of its .json (.tar); ``text``
    .txt .md .markdown .rst; ``markdown`` .md .markdown; ``huggingface`` files of any of these kinds in a data set's
    repository on the hub.
    """

    kind: Literal[
        "embedded", "jsonl", "csv", "parquet", "arrow", "webdataset", "text", "markdown", "huggingface"
    ]  # fmt: skip
    repository: str | None = Field(None, description="huggingface: the data set, owner/name; paths are globs inside it")
    paths: tuple[FileName, ...] = Field(
        (), description="corpus; split by document hash where no dev/test paths are given"
    )
    dev_paths: tuple[FileName, ...] = Field((), description="files that are the dev split as they are")
    test_paths: tuple[FileName, ...] = Field((), description="files that are the test split as they are")
    text_field: str = Field("text", description="field of the text; a.b: field b of field a")
    id_field: str = Field(
        "id",
        description="field of the name; where it is missing, empty or not the first of that name in its piece of the "
        "file, the name is FILE:LINE",
    )
    document_start: str | None = Field(
        None, description="regular expression: a line (text) or row (other kinds) that it matches begins a document"
    )
    encoding: str = Field("utf-8", description="of text, jsonl and csv; utf-8 may begin with a byte-order mark")
    max_record_megabytes: Annotated[float, Field(gt=0.0, le=2047.0)] = Field(
        64.0, description="a longer line, row or file of text cannot be read"
    )
    on_error: Literal["fail", "skip"] = Field(
        "fail", description="what cannot be read: end the build, or leave it out and list it in skipped.jsonl"
    )
    max_errors: Annotated[int, Field(ge=0)] = Field(
        1000, description="on_error=skip: with more the build ends after all"
    )

    @field_validator("document_start")
    @classmethod
    def _is_regular(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression ({error}): mend it") from None
        return pattern

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            text = "\n".encode(encoding).decode(encoding)
        except (LookupError, ValueError):
            text = ""
        if text != "\n":
            raise ValueError(
                f"{encoding!r} is no encoding of text that Python knows: give one such as utf-8 or latin-1"
            )
        return encoding

    @model_validator(mode="after")
    def _keys_fit_kind(self) -> SourceConfig:
        given = [key for key in ("paths", "dev_paths", "test_paths", "document_start") if getattr(self, key)]
        if self.kind == "embedded" and given:
            raise ValueError(f"source.{given[0]} has no meaning for kind=embedded: remove it or set kind=jsonl|text")
        if self.kind != "embedded" and not self.paths:
            raise ValueError(f"source.paths is empty, kind={self.kind} needs at least one file, folder or glob")
        if self.kind == "huggingface" and not self.repository:
            raise ValueError("source.repository is missing, kind=huggingface needs a data set such as owner/name")
        if self.kind != "huggingface" and self.repository:
            raise ValueError(f"source.repository has no meaning for kind={self.kind}: remove it, or kind=huggingface")
        return self


class CleanConfig(Section):
    style: Literal["prose", "plain"] = Field(
        "prose", description="prose: sentences only, markup and code removed, lines joined; plain: the text as it is"
    )
    min_words: Positive = Field(20, description="shorter documents are dropped")


class DedupConfig(Section):
    paragraphs: bool = Field(True, description="a paragraph that an earlier document holds is dropped")
    near_duplicate: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        0.8, description="documents at least this similar (Jaccard, MinHash) to an earlier one are dropped; null: none"
    )


class DecontaminateConfig(Section):
    """Evaluation files whose text must not be trained on: a train document that shares a run of words is dropped."""

    paths: tuple[FileName, ...] = Field((), description="evaluation files, folders or globs; none: nothing is dropped")
    kind: Literal["jsonl", "csv", "parquet", "arrow", "text", "markdown"] = Field(
        "jsonl", description="of these files, as in source.kind"
    )
    text_field: str = Field("text", description="of records: field of the text")
    ngram: Annotated[int, Field(ge=3)] = Field(13, description="words of a run, capitals and punctuation ignored")


class SplitConfig(Section):
    """Shares by document hash; unused where the source has dev_paths or test_paths (the rest is then all train)."""

    dev: Share = 0.02
    test: Share = 0.02

    @model_validator(mode="after")
    def _train_is_left(self) -> SplitConfig:
        if self.dev + self.test >= 1.0:
            raise ValueError(f"split.dev={self.dev} + split.test={self.test} leave nothing for training: lower them")
        return self


class TokenizerConfig(Section):
    """Trained on the train documents, unless ``model`` or ``name`` says which one is used instead."""

    vocab_size: Annotated[int, Field(ge=300, le=2**31)] = Field(
        4096, description="pieces, specials and 256 bytes included"
    )
    sample_megabytes: Annotated[float, Field(gt=0.0)] = Field(
        2.0, description="train text that the pieces are learnt from"
    )
    model: Path | None = Field(
        None, description="use this sentencepiece model or byte-level tokenizer.json, or the one in this folder"
    )
    name: str | None = Field(None, description="a model on the Hugging Face hub whose tokenizer.json is used: gpt2")
    if_unreachable: Literal["fail", "train"] = Field(
        "fail", description="name, but no hub and nothing in its cache: fail, or train one all the same"
    )

    @model_validator(mode="after")
    def _one_is_given(self) -> TokenizerConfig:
        if self.model is not None and self.name is not None:
            raise ValueError(f"tokenizer.model={self.model} excludes tokenizer.name={self.name}: remove one")
        return self


class ShardConfig(Section):
    sequences_per_member: Positive = Field(128, description="sequences in one member of a tar: what one read fetches")
    members_per_shard: Positive = 64
    lineage: bool = Field(True, description="write beside each shard which documents its sequences come from")


class BuildConfig(Section):
    """What every build says, of one corpus or of several."""

    output: Path = Field(description="folder of shards, manifest.json and tokenizer.model; of several: of such folders")
    clean: CleanConfig = CleanConfig()
    dedup: DedupConfig = DedupConfig()
    decontaminate: DecontaminateConfig = DecontaminateConfig()
    split: SplitConfig = SplitConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    max_length: Annotated[int, Field(ge=16)] = Field(64, description="tokens a sequence, BOS and EOS included")
    packing: Literal["stream", "documents"] = Field(
        "stream",
        description="of training sequences. stream: any consecutive tokens of all documents, one text each; documents: "
        "as many whole documents as fit, which do not see each other",
    )
    shards: ShardConfig = ShardConfig()
    workers: Positive | None = Field(None, description="Ray processes; null: one for each core")
    seed: int = 0


class DataBuildConfig(BuildConfig):
    """One file, one corpus."""

    source: SourceConfig


class Ingredient(Section):
    """A corpus beside others: the folder ``output/name``, and how much of it a run reads."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=100)] = Field(
        description="of its folder: letters, digits, - and _"
    )
    weight: Annotated[float, Field(gt=0.0)] = Field(
        1.0, description="share of a run's sequences and of the tokenizer's sample, beside other weights"
    )
    epochs: Positive | None = Field(None, description="how often a run reads each sequence at most; null: no limit")


class CorpusConfig(Ingredient):
    """A section that is not given is that of the whole file."""

    source: SourceConfig
    clean: CleanConfig | None = None
    dedup: DedupConfig | None = None
    decontaminate: DecontaminateConfig | None = None
    split: SplitConfig | None = None


class MixtureBuildConfig(BuildConfig):
    """One file, several corpora: a folder each, with one tokenizer, which runs read by weight."""

    sources: Annotated[tuple[CorpusConfig, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> MixtureBuildConfig:
        names = [each.name for each in self.sources]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"sources: two are called {repeated[0]!r}: give each a name of its own")
        return self

    def corpora(self, tokenizer: Path | None) -> list[DataBuildConfig]:
        """The build of each source. ``tokenizer``: the one of all, where the file names none."""
        shared = {name: getattr(self, name) for name in BuildConfig.model_fields}
        if tokenizer is not None:
            shared["tokenizer"] = self.tokenizer.model_copy(update={"model": tokenizer, "name": None})
        return [
            DataBuildConfig(**{**shared, **_given(each), "output": self.output / each.name}) for each in self.sources
        ]


def _given(corpus: CorpusConfig) -> dict[str, Section]:
    """Its sections."""
    values = {name: getattr(corpus, name) for name in CorpusConfig.model_fields}
    return {name: value for name, value in values.items() if isinstance(value, Section)}
