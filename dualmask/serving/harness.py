"""``python -m dualmask.serving.harness``: EleutherAI's lm-evaluation-harness with the model ``dualmask`` in it.

lm_eval 0.4 finds a model of another package only where its module was imported in the same process. This one registers
ours and hands the arguments on to lm_eval's own command line.
"""

# N requests

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualmask.core.tokenizer import BOS_ID, EOS_ID
from dualmask.evaluation import likelihood
from dualmask.evaluation.continuation import TEXTS_AT_ONCE, parts
from dualmask.evaluation.likelihood import Passage, Scorer
from dualmask.evaluation.writers import Writer, WriterSettings, parse_order
from dualmask.families import registry
from dualmask.inference.folder import family_of
from dualmask.inference.loading import load
from dualmask.serving.eval_generation import writers_of

try:
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error}: pip install 'dualmask[harness]' brings lm-evaluation-harness") from None

MOST_TOKENS = 256  # that are written where a task names no number, as in lm_eval's own models
UNASKED_DEVICE = "cuda:0"  # what lm_eval hands on where its command line names none
UNDERSTOOD = {"until", "max_gen_toks", "do_sample", "temperature"}


@dataclass(frozen=True)
class Asked:
    """A request to write. Those that are alike in ``tokens`` and ``temperature`` may share a batch."""

    prompt: list[int]
    tokens: int
    temperature: float
    until: list[str]


@register_model("dualmask")
class HarnessModel(TemplateLM):
    """``--model_args``:

    pretrained          an exported folder, or a run's folder
    seed                of what is drawn: the n-th request to write has ``seed`` + n
    passes, fill_steps  of a DualMaskLM: filler passes, and passes to each round
    steps, order        of a diffusion model: passes that unmask, and random or confidence
    bound_draws         of a diffusion model: loglikelihood_rolling gives a lower bound of log p, the mean of so many
                        draws; 0: it is refused
    span, gate          of a SpanFusionLM, as in ``dualmask generate``

    Raises ValueError for a folder or device that cannot be used.
    """

    def __init__(
        self,
        pretrained: str | Path,
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        *,
        seed: int = 0,
        bound_draws: int = 0,
        passes: int = 16,
        fill_steps: int = 1,
        steps: int = 64,
        order: str = "random",
        span: int = 16,
        gate: str = "learned",
    ) -> None:
        super().__init__()
        where = "auto" if device in (None, UNASKED_DEVICE) else str(device)
        self.loaded = load(pretrained, where, family=family_of(pretrained))
        self.batch_size = int(str(batch_size)) if str(batch_size).isdecimal() else TEXTS_AT_ONCE
        self.seed, self.bound_draws = seed, bound_draws
        self.settings = WriterSettings((passes,), (fill_steps,), (steps,), parse_order(order), span, gate, may_end=True)

    @property
    def eot_token_id(self) -> int:
        return EOS_ID

    @property
    def prefix_token_id(self) -> int:
        """What stands in front of a text without a context."""
        return BOS_ID

    @property
    def room(self) -> int:
        return likelihood.room_of(self.loaded.config.max_length)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        """Ids without BOS, which ``Scorer`` and writers put in front of every text."""
        return self.loaded.tokenizer.encode(string)

    def get_model_info(self) -> dict[str, Any]:
        """What stands beside the figures in lm_eval's result file."""
        return {"model_family": self.loaded.config.family, "bound_draws": self.bound_draws}

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """[N] log p of whole texts in nats, or bounds of it where ``bound_draws`` asks for them. Raises ValueError for
        a family that has no such thing."""
        texts, loaded = [text for (text,) in (request.args for request in requests)], self.loaded
        if self.bound_draws:
            draws, at_once = self.bound_draws, self.batch_size
            nats = likelihood.document_bounds(loaded.model, texts, loaded.tokenizer, draws, at_once)
        else:
            documents = [self.tok_encode(text) for text in texts]
            nats = likelihood.document_scores(self._scorer("loglikelihood_rolling"), documents, self.room)[:, 0]
        return [float(-each) for each in nats]

    def _loglikelihood_tokens(self, requests: Sequence[Any], **options: Any) -> list[tuple[float, bool]]:
        """For each (texts, context ids, continuation ids): log p of the continuation in nats, and whether each of its
        tokens is the likeliest. Raises ValueError as above, and for a continuation that the model cannot read whole."""
        scorer = self._scorer("loglikelihood")
        scores = scorer.score([self._passage(context, continuation) for _, context, continuation in requests])
        return [(float(-nats), bool(likeliest == number)) for nats, number, likeliest in scores]

    def _passage(self, context: list[int], continuation: list[int]) -> Passage:
        """The context loses its beginning where the model cannot read both."""
        if not 1 <= len(continuation) <= self.room:
            raise ValueError(
                f"loglikelihood: a continuation of {len(continuation)} tokens, and the model reads 1 to {self.room}"
            )
        given = last([index for index in context if index != BOS_ID], self.room - len(continuation))
        return Passage([*given, *continuation], len(given))

    def _scorer(self, request: str) -> Scorer:
        try:
            return Scorer.of(self.loaded.model, self.batch_size)
        except ValueError as error:
            bounded = registry.find(self.loaded.config.family).load_runtime().bound is not None
            others = ", and loglikelihood_rolling as a bound, with bound_draws=N," if bounded else ""
            raise ValueError(f"{request}: {error}; generate_until{others} can be run") from None

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """[N] what follows each context, up to the first of the task's stop strings. Raises ValueError for arguments of
        a generation that our models do not know."""
        writer = self._writer()
        asked = [self._asked(*request.args) for request in requests]
        groups: dict[tuple[int, float], list[int]] = {}
        for number, each in enumerate(asked):
            groups.setdefault((each.tokens, each.temperature), []).append(number)
        written: dict[int, str] = {}
        for numbers in groups.values():
            for part in parts(len(numbers), self.batch_size):
                written |= self._write(writer, {number: asked[number] for number in numbers[part]})
        return [written[number] for number in range(len(asked))]

    def _writer(self) -> Writer:
        (writer,) = writers_of(self.loaded, self.settings)
        return writer

    def _write(self, writer: Writer, asked: dict[int, Asked]) -> dict[int, str]:
        """Text by number of the request. All are alike in tokens and temperature."""
        some = next(iter(asked.values()))
        prompts = [each.prompt for each in asked.values()]
        seeds = [self.seed + number for number in asked]
        continuations = writer.write(prompts, some.tokens, some.temperature, seeds)
        texts = [self.loaded.tokenizer.decode(continuation.ids) for continuation in continuations]
        return {
            number: postprocess_generated_text(text, each.until, think_end_token=None)
            for (number, each), text in zip(asked.items(), texts, strict=True)
        }

    def _asked(self, context: str, arguments: dict[str, Any]) -> Asked:
        """The context loses its beginning where what is to be written behind it would not fit."""
        most = self.loaded.config.max_length - 2  # BOS and EOS
        normal = normalize_gen_kwargs(arguments, min(MOST_TOKENS, most // 2))
        if unknown := sorted(normal.keys() - UNDERSTOOD):
            raise ValueError(f"generate_until: {', '.join(unknown)}: known are {', '.join(sorted(UNDERSTOOD))}")
        tokens = normal["max_gen_toks"]
        if not 1 <= tokens <= most:
            raise ValueError(f"generate_until: max_gen_toks={tokens}: the model writes 1 to {most}")
        prompt = last(self.tok_encode(context), most - tokens)
        return Asked(prompt, tokens, float(normal.get("temperature", 0.0)), normal["until"])


def last(ids: list[int], number: int) -> list[int]:
    """At most ``number`` ids, from 0 on."""
    return ids[max(len(ids) - number, 0) :]


def main() -> None:
    """Whatever the user can mend is one line on stderr and code 2."""
    try:
        cli_evaluate()
    except ValueError as error:
        print(f"dualmask: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
