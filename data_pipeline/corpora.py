"""Several corpora beside each other: a folder each, with one tokenizer, and ``mixture.json``, by which runs read them.

Each folder is an ordinary build. The tokenizer is trained after the first stage of all of them, on a sample that holds
each by its weight.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data_pipeline import documents, lock, mixture, vocabulary
from data_pipeline.build import BuildError, build, explained, extract_documents, is_complete
from data_pipeline.cluster import cores, running_ray
from data_pipeline.files import write_atomically
from data_pipeline.manifest import MANIFEST_FILE, TOKENIZER_FILE, Manifest
from data_pipeline.mixture_page import write_mixture_page
from data_pipeline.sources import SourceError
from data_pipeline.stages import WORK_FOLDER, Inputs, Stages, digest
from data_pipeline.steps import Step, discard
from data_pipeline.vocabulary import Sampled, VocabularyError
from dualmask.config.data import DataBuildConfig, Ingredient, MixtureBuildConfig
from dualmask.config.mixture import MIXTURE_FILE, Mixture

_SAMPLE = "sample"
_STAGE = "tokenizer"

log = logging.getLogger(__name__)


def build_mixture(config: MixtureBuildConfig, wait: bool = True) -> dict[str, Manifest]:
    """Builds what is missing in ``config.output``, and returns the manifests of its folders by name.

    ``wait`` and errors: as ``build``; an error of one corpus begins with its name.
    """
    mixture.Mixture([each.weight for each in config.sources], config.seed)  # whether they can be mixed
    try:
        work = config.output.absolute() / WORK_FOLDER
        work.mkdir(parents=True, exist_ok=True)
        with lock.held(work, config.output, wait):
            manifests = _built(config, work, wait)
            _describe(config)
            return manifests
    except Exception as error:
        raise explained(error, config) from error


def _built(config: MixtureBuildConfig, work: Path, wait: bool) -> dict[str, Manifest]:
    if (config.output / MANIFEST_FILE).exists():
        raise BuildError(f"output={config.output} holds one corpus ({MANIFEST_FILE}): choose another output")
    given = vocabulary.find(config.tokenizer)
    tokenizer = None if given else config.output.absolute() / TOKENIZER_FILE
    corpora = config.corpora(tokenizer)
    if _is_complete(config, corpora, tokenizer, work):
        log.info("%s is complete, nothing to do", config.output)
        return {corpus.output.name: Manifest.load(corpus.output) for corpus in corpora}
    with running_ray(config.workers or cores()):
        if tokenizer is not None:
            _make_tokenizer(config, corpora, tokenizer, work, wait)
        manifests = {}
        for corpus in corpora:
            with _named(corpus):
                manifests[corpus.output.name] = build(corpus, wait)
        return manifests


def _is_complete(
    config: MixtureBuildConfig, corpora: Sequence[DataBuildConfig], tokenizer: Path | None, work: Path
) -> bool:
    if tokenizer is not None and not Stages(work).is_done(_STAGE, _tokenizer_inputs(config, corpora), [tokenizer]):
        return False
    return all(map(is_complete, corpora))


def _tokenizer_inputs(config: MixtureBuildConfig, corpora: Sequence[DataBuildConfig]) -> Inputs:
    inputs: Inputs = config.tokenizer.model_dump(include={"vocab_size", "sample_megabytes"})
    for corpus, share in zip(corpora, _shares(config), strict=True):
        with _named(corpus):
            inputs[f"documents of {corpus.output.name}"] = digest(documents.inputs(corpus))
        inputs[f"share of {corpus.output.name}"] = share
    return inputs


def _shares(config: MixtureBuildConfig) -> list[float]:
    weights = [each.weight for each in config.sources]
    return [weight / sum(weights) for weight in weights]


def _make_tokenizer(
    config: MixtureBuildConfig, corpora: Sequence[DataBuildConfig], target: Path, work: Path, wait: bool
) -> None:
    """Trains ``target`` on the documents of all corpora, which are extracted first; unless that is done."""
    folders = [corpus.output.absolute() / WORK_FOLDER for corpus in corpora]
    for corpus, folder in zip(corpora, folders, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        log.info("%s:", corpus.output.name)
        with _named(corpus), lock.held(folder, corpus.output, wait):
            extract_documents(corpus, folder, documents.inputs(corpus), Stages(folder))
    inputs = _tokenizer_inputs(config, corpora)
    samples = [Sampled(folder, share) for folder, share in zip(folders, _shares(config), strict=True)]

    def train() -> None:
        step = Step(work / _SAMPLE, digest(inputs))
        vocabulary.train_on(samples, config.tokenizer, target, step, config.seed)

    Stages(work).run(_STAGE, inputs, [target], train)
    discard(work / _SAMPLE)


@contextmanager
def _named(corpus: DataBuildConfig) -> Iterator[None]:
    """An error that the user can mend begins with the name of the corpus."""
    try:
        yield
    except Exception as error:
        known = explained(error, corpus)
        if isinstance(known, (BuildError, SourceError, VocabularyError)):
            raise BuildError(f"{corpus.output.name}: {known}") from error
        raise


def _describe(config: MixtureBuildConfig) -> None:
    ingredients = tuple(Ingredient(name=each.name, weight=each.weight, epochs=each.epochs) for each in config.sources)
    content = Mixture(sources=ingredients).model_dump_json(indent=1)
    write_atomically(config.output / MIXTURE_FILE, content.encode() + b"\n")
    write_mixture_page(config.output)
