"""The one loss of a language model: nats a token; exact for the autoregressive one, an upper bound for diffusion."""

from __future__ import annotations

from dualmask.core.batch import Batch
from dualmask.families.edit.losses.total import LossReport
from dualmask.families.outputs import FillerOut


def language_model_loss(out: FillerOut, batch: Batch, given: int) -> LossReport:
    """The slots' losses, weighted, over the tokens that a batch of full-length sequences predicts.

    ``given``: tokens of a sequence that the model does not predict. Divided by the expected number, not by the counted
    one (see families/edit/losses/total.py).
    """
    rows, width = batch.tokens.shape
    nll = (out.loss * out.slot_weight).sum() / (rows * (width - given))
    return LossReport(nll, {"nll": nll.detach().float(), "token_prob": out.target_prob.float().mean()})
