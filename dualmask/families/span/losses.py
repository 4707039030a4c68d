"""The losses of SpanFusionLM (seed 004, §4): 0.4·L_AR + 0.2·L_latent + 0.4·L_token + β·E[g], each weight a key.

Divided by expected numbers, as everywhere (edit/losses/total.py): a batch's loss is the mean of its parts'.
"""

# B batch, N steps, K places of a span, D width

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, layer_norm

from dualmask.core.batch import Batch
from dualmask.curriculum import StepPlan
from dualmask.families.span import spans
from dualmask.families.span.config import SpanLosses, SpanStageConfig
from dualmask.families.span.outputs import SpanOut
from dualmask.families.task import WindowLoss
from dualmask.nn.token_losses import mean_token_loss

GIVEN = 1  # BOS, which the decoder does not predict


def span_loss(out: SpanOut, batch: Batch, plan: StepPlan) -> WindowLoss:
    settings = plan.stage.span
    weights = spans.stop_weights(out.go_on)
    losses = {
        "ar": mean_token_loss(out.ar, batch, GIVEN),
        "token": token_loss(out, weights, settings),
        "steps": steps_taken(out, weights, settings),
    }
    if out.z_teacher is not None:
        losses["latent"] = latent_loss(out.z, out.z_teacher)
    if out.pred_nats is not None:
        losses["pred"] = (out.pred_nats * out.open).sum() / out.open.sum().clamp_min(1)
    untouched = 0.0 * (out.gate_logits.sum() + out.z.float().sum() + out.nats.sum())
    total = sum((_weight(name, settings.losses, plan) * loss for name, loss in losses.items()), untouched)
    seen = losses | figures(out, weights) | {"token_prob": out.ar.target_prob.float().mean()}
    return WindowLoss(total, {name: value.detach().float() for name, value in seen.items()})


def token_loss(out: SpanOut, weights: Tensor, settings: SpanStageConfig) -> Tensor:
    """Nats a token at the step at which each text stops; ``weights`` [B, N]: ``spans.stop_weights``.

    The model learns from the stop as it came (``explore``: in part from all steps alike), the gate from what each stop
    costs. With ``gate_gradient`` below "quality" the gate hears nothing of it, as in the seed.
    """
    cost = stop_costs(out).mean(-1)
    spread = torch.full_like(weights, settings.explore / weights.shape[1])
    learnt = ((1 - settings.explore) * weights.detach() + spread) * cost
    judged = out.forced if settings.teacher_forcing > 0 else torch.ones_like(out.forced)
    heard = (weights - weights.detach()) * cost.detach() * judged[:, None]
    return (learnt + (heard if settings.gate_gradient == "quality" else 0.0)).sum(1).mean()


def stop_costs(out: SpanOut) -> Tensor:
    """[B, N, K] nats of each token if the text stops behind each step.

    Where tokens were drawn: of the states of that step, written places too (the seed). Where the true tokens were
    written: of the step that wrote the token, or that would have filled it at the stop; their sum is −log p of the span
    when it is written in this way. Only there can more steps pay: written tokens help the others.
    """
    return torch.where(out.forced[:, None, None], schedule_nats(out.nats, out.open, out.pick), out.nats)


def schedule_nats(nats: Tensor, open_: Tensor, pick: Tensor) -> Tensor:
    """[B, N, K] −log p of each true token, by the step that wrote it, or that fills it if the text stops behind it.

    All three [B, N, K] of a span into which the true tokens were written: cross entropies, not written before a step,
    written in it.
    """
    return (nats * pick).cumsum(1) + nats * (open_ & ~pick)


def steps_taken(out: SpanOut, weights: Tensor, settings: SpanStageConfig) -> Tensor:
    """Mean E[g]; with ``gate_gradient`` "none" the seed's counter, which carries no gradient (repair R7)."""
    steps = spans.expected_steps(weights).mean()
    return steps.detach() if settings.gate_gradient == "none" else steps


def latent_loss(z_BKD: Tensor, teacher_BKD: Tensor) -> Tensor:
    """½ (1 − cosine) of layer-normalised states, mean over texts and places."""
    student, teacher = (layer_norm(z.float(), z.shape[-1:]) for z in (z_BKD, teacher_BKD))
    return 0.5 * (1 - cosine_similarity(student, teacher, dim=-1)).mean()


def figures(out: SpanOut, weights: Tensor) -> dict[str, Tensor]:
    """``latent_std``: spread of the states over texts and places; near 0 they have collapsed (repair R10).
    ``nll_1``, ``nll_N``: nats per token with one step and with all, where the true tokens were written."""
    ours = layer_norm(out.z.detach().float(), out.z.shape[-1:])
    cost, rows = stop_costs(out).detach().mean(-1), out.forced.float()
    known = rows.sum().clamp_min(1)
    return {
        "latent_std": ours.flatten(0, 1).std(0, correction=0).mean(),
        "entropy": out.mean_entropy[:, 0].mean(),
        "nll_1": (cost[:, 0] * rows).sum() / known,
        f"nll_{weights.shape[1]}": (cost[:, -1] * rows).sum() / known,
    }


def _weight(name: str, losses: SpanLosses, plan: StepPlan) -> float:
    return losses.beta(plan.step_in_stage) if name == "steps" else float(getattr(losses, name))
