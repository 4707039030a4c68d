"""``dualmask eval generation``: DualMask against an autoregressive and a masked-diffusion model of equal size."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualmask.families import registry
from dualmask.serving.eval_options import Measured, load_judge, numbers, require_alike
from dualmask.serving.options import with_options

if TYPE_CHECKING:
    from dualmask.evaluation.judge import Judge
    from dualmask.evaluation.writers import Writer, WriterSettings
    from dualmask.inference.loading import Loaded

COUNTS = "whole numbers from 1 on, such as 4,8,16"
CAPTION = (
    "given: tokens of the prompt; dualmask: rounds and fill steps of each; diffusion: steps and order; matched: where "
    "the texts are as varied (distinct2) as the held-out ones, the reference; all rows and intervals: --json"
)


@dataclass(frozen=True)
class Compared:
    """The other models."""

    ar: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Autoregressive model to compare with.", show_default=False)
    ] = None
    diffusion: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Masked-diffusion model to compare with.", show_default=False)
    ] = None
    scorer: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Autoregressive model that judges the texts; another one than --ar. Without it: no perplexity.",
            show_default=False,
        ),
    ] = None
    steps: Annotated[str, typer.Option(help="Passes of the diffusion model, at most one a token.")] = "16,128"
    order: Annotated[str, typer.Option(help="Of its unmasking: random or confidence.")] = "random"


@dataclass(frozen=True)
class Written:
    """What is written, and how."""

    passes: Annotated[str, typer.Option(help="Filler passes that DualMask may take.")] = "4,8,16"
    fill_steps: Annotated[str, typer.Option(help="Passes to each of its rounds.")] = "1,4"
    temperatures: Annotated[str, typer.Option(help="Of all methods.")] = "0.5,0.7,0.85,1,1.2"
    prompts: Annotated[str, typer.Option(help="Tokens of a held-out text that are given; 0: from nothing.")] = "16,0"
    length: Annotated[
        int | None, typer.Option(help="Tokens of a whole text. Default: the models' most.", show_default=False)
    ] = None
    limit: Annotated[int, typer.Option(help="Most texts a method writes for each temperature.", min=16)] = 64
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0


@with_options
def generation(measured: Measured, compared: Compared, written: Written) -> None:
    """How good, how varied and how fast the texts are that the model writes behind prompts.

    All methods write equally many tokens behind the same beginnings of held-out texts. perplexity is that of an outside
    judge, --scorer (a model must not score itself: train it with another seed). A low temperature flatters every
    method, so they are compared where their texts are as varied (distinct2) as the held-out ones: the rows with
    temperature "matched". The method "reference" is the held-out text itself. Variety is taken among 8 texts at a time;
    intervals are 95 % bootstrap over groups. passes: of the filler or the language model, a text; block_passes:
    transformer blocks of all networks.

    \b
    dualmask eval generation --model runs/quickstart --data data/embedded/test.jsonl \\
        --ar runs/autoregressive --diffusion runs/diffusion --scorer runs/scorer --json out.json --plot out.png
    """
    from tqdm import tqdm

    from dualmask.evaluation import generation as suite
    from dualmask.evaluation import generation_report, tables, texts
    from dualmask.inference.loading import load

    between = "numbers from 0 to 100, such as 0.5,1"
    temperatures = numbers("--temperatures", written.temperatures, float, lambda t: 0 <= t <= 100, between)
    prompts = numbers("--prompts", written.prompts, int, lambda n: n >= 0, "numbers of tokens, such as 16,0")
    lines = texts.read_texts(measured.data)
    loaded = load(measured.model, measured.device)
    most = loaded.config.max_length - 2
    if written.length is not None and not 2 <= written.length <= most:
        raise ValueError(f"--length {written.length}: give 2 to {most} tokens, the most that {measured.model} reads")
    writers = _writers(loaded, measured, compared, written)
    judge = _judge(loaded, measured, compared)
    sequences = [ids[1:-1] for ids in texts.sequences(lines, loaded.tokenizer, most + 2)]
    tasks = [suite.make_task(sequences, prompt, written.length or most, written.limit) for prompt in prompts]
    rows = []
    with tqdm(total=len(tasks) * len(writers) * len(temperatures), delay=2, leave=False, disable=None) as bar:
        for task in tasks:
            rows += suite.evaluate(
                writers, task, temperatures, loaded.tokenizer, judge, seed=written.seed, progress=bar.update
            )
    measured.write("generation", rows, scorer=str(compared.scorer) if compared.scorer else None)
    if measured.plot:
        generation_report.plot(rows, measured.plot)
    tables.show([generation_report.table(rows, CAPTION)])
    if judge is None:
        print("dualmask: no --scorer, so no perplexity and no comparison at equal variety", file=sys.stderr)


def _writers(loaded: Loaded[Any], measured: Measured, compared: Compared, written: Written) -> list[Writer]:
    """The model's own, and those of the models that it is compared with."""
    from dualmask.evaluation.writers import WriterSettings, parse_order
    from dualmask.inference.loading import load

    def counts(option: str, text: str) -> list[int]:
        return numbers(option, text, int, lambda number: number >= 1, COUNTS)

    settings = WriterSettings(
        passes=counts("--passes", written.passes),
        fill_steps=counts("--fill-steps", written.fill_steps),
        steps=counts("--steps", compared.steps),
        order=parse_order(compared.order),
    )
    writers = writers_of(loaded, settings)
    for option, folder, family in (
        ("--ar", compared.ar, "autoregressive"),
        ("--diffusion", compared.diffusion, "diffusion"),
    ):
        if folder:
            other = load(folder, measured.device, family=family)
            require_alike(loaded, other, f"{option} {folder}", measured)
            writers += writers_of(other, settings)
    return writers


def writers_of(loaded: Loaded[Any], settings: WriterSettings) -> list[Writer]:
    """Raises ValueError for a model whose family offers none."""
    runtime = registry.find(loaded.config.family).load_runtime()
    if runtime.writers is None:
        raise ValueError(f"the family {loaded.config.family} has no writers to compare")
    return runtime.writers(loaded, settings)


def _judge(loaded: Loaded[Any], measured: Measured, compared: Compared) -> Judge | None:
    from dualmask.inference.folder import weights_digest

    scorer, ar = compared.scorer, compared.ar
    if scorer and ar and weights_digest(scorer, "autoregressive") == weights_digest(ar, "autoregressive"):
        raise ValueError(
            f"--scorer {scorer}: the same model as --ar {ar}, and a model must not score itself; train another one, "
            "with --set seed=2 --set data.shuffle_seed=2"
        )
    return load_judge(scorer, loaded, measured)
