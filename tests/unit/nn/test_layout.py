"""Trunks on the present tokens alone, and attention without a mask, give what padded rows with a mask give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dualmask.core import host
from dualmask.families.edit.config import EditConfig
from dualmask.nn import layout
from dualmask.nn.cache import KVCache, PrefixCache
from dualmask.nn.layout import Flat, Layout, PaddedRows, lay_out
from dualmask.nn.parallel import mesh
from dualmask.nn.trunk import Trunk

CONFIG = EditConfig(
    hidden=32, heads=4, filler_layers=2, inserter_layers=1, picker_layers=1, max_length=16, init_std=0.3
)
WIDTH = 13
RAGGED = (13, 1, 4, 7, 2)
SHORT = (3, 5, 1)  # no text fills its row
EQUAL = (6, 6)
WITH_EMPTY = (4, 0, 7)
FULL = (13, 13)
Spy = list[dict[str, Any]]


def trunk(*, causal: bool, checkpointing: bool = False) -> Trunk:
    mesh.single_process()
    torch.manual_seed(1)
    return Trunk(CONFIG, 2, causal=causal, activation_checkpointing=checkpointing).train()


def right_padded(lengths: tuple[int, ...]) -> Tensor:
    return torch.arange(WIDTH) < torch.tensor(lengths)[:, None]


def left_padded(lengths: tuple[int, ...]) -> Tensor:
    return right_padded(lengths).flip(1)


def inputs(present: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings, with something at padding that must not matter, and real-valued positions."""
    draw = torch.Generator().manual_seed(len(present))
    x_BTD = torch.randn(*present.shape, CONFIG.hidden, generator=draw)
    position = (present.long().cumsum(1) - 1).clamp_min(0) + 0.1 * torch.rand(present.shape, generator=draw)
    return x_BTD.requires_grad_(), position.requires_grad_()


def by_mask(present: Tensor, *, causal: bool, **ignored: object) -> Layout:
    """As all batches were once laid out."""
    mask = layout.causal_mask(present, present.shape[1]) if causal else layout.key_mask(present)
    return PaddedRows(present, mask)


def learnt(model: Trunk, present: Tensor, **options: Any) -> list[Tensor]:
    """The present states, and the gradients of a function of them, of inputs and parameters."""
    x_BTD, position = inputs(present)
    states = model(x_BTD, position, present, **options)[present]
    score = (states * torch.linspace(-1, 1, states.numel()).view_as(states)).square().sum()
    return [states, *torch.autograd.grad(score, [x_BTD, position, *model.parameters()])]


def assert_close(seen: list[Tensor], wanted: list[Tensor]) -> None:
    for one, other in zip(seen, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max().clamp_min(1)


@pytest.fixture
def attention(monkeypatch: pytest.MonkeyPatch) -> Spy:
    """What each call of torch's attention was told."""
    calls: Spy = []
    real: Callable[..., Tensor] = layout.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        calls.append(options | {"shape": q.shape})
        return real(q, k, v, **options)

    monkeypatch.setattr(layout, "scaled_dot_product_attention", spy)
    return calls


class Waits(TorchDispatchMode):
    """Operations whose results a host would have to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := function.overloadpacket.__name__) in ("nonzero", "_local_scalar_dense", "masked_select", "item"):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def device_alone_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "readable", lambda x: False)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("causal", [False, True], ids=["both sides", "causal"])
@pytest.mark.parametrize("lengths", [RAGGED, SHORT, EQUAL, FULL, WITH_EMPTY], ids=str)
@pytest.mark.parametrize("padded", [right_padded, left_padded])
def test_values_and_gradients_are_those_of_padded_rows_with_a_mask(
    padded: Callable[[tuple[int, ...]], Tensor],
    lengths: tuple[int, ...],
    causal: bool,
    checkpointing: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    present, model = padded(lengths), trunk(causal=causal, checkpointing=checkpointing)
    laid = lay_out(present, causal=causal)
    assert isinstance(laid, PaddedRows) == (lengths == FULL)
    seen = learnt(model, present)
    with monkeypatch.context() as patched:
        patched.setattr("dualmask.nn.trunk.lay_out", by_mask)
        wanted = learnt(trunk(causal=causal), present)
    assert all(part.isfinite().all() for part in seen)
    assert_close(seen, wanted)


@pytest.mark.parametrize("causal", [False, True])
def test_each_text_is_read_as_if_it_were_alone(causal: bool) -> None:
    present, model = right_padded(RAGGED), trunk(causal=causal)
    x_BTD, position = inputs(present)
    together = model(x_BTD, position, present)
    for row, length in enumerate(RAGGED):
        part = slice(row, row + 1), slice(0, length)
        alone = model(x_BTD[part], position[part], present[part])
        assert (together[part] - alone).abs().max() < 1e-5


@pytest.mark.parametrize("causal", [False, True])
def test_the_convolution_ends_at_the_borders_of_texts(causal: bool) -> None:
    """A change of one text's embeddings at a border changes no sum of its neighbours."""
    present, model = right_padded(RAGGED), trunk(causal=causal)
    laid = lay_out(present, causal=causal)
    assert isinstance(laid, Flat)
    x = torch.randn(sum(RAGGED), CONFIG.hidden)
    changed, row = x.clone(), slice(sum(RAGGED[:2]), sum(RAGGED[:3]))
    changed[row] = 7.0
    difference = (model.neighbours(x, laid) != model.neighbours(changed, laid)).any(-1)
    assert difference.nonzero().flatten().tolist() == list(range(row.start, row.stop))


@pytest.mark.parametrize(
    ("lengths", "causal", "mask", "is_causal"),
    [
        (FULL, False, False, False),
        (FULL, True, False, True),
        (RAGGED, True, False, True),
        (RAGGED, False, True, False),
        (EQUAL, False, False, False),  # rows cut to the longest text are full
    ],
)
def test_attention_has_a_mask_only_where_keys_must_be_hidden(
    lengths: tuple[int, ...], causal: bool, mask: bool, is_causal: bool, attention: Spy
) -> None:
    present = right_padded(lengths)
    trunk(causal=causal)(*inputs(present), present)
    assert len(attention) == 2
    for call in attention:
        assert (call["attn_mask"] is not None) == mask
        assert call["is_causal"] == is_causal
        assert call["shape"][2] == max(lengths)  # not the width of the batch


@pytest.mark.usefixtures("device_alone_knows")
@pytest.mark.parametrize("causal", [False, True])
def test_nothing_is_read_from_a_device(causal: bool, attention: Spy) -> None:
    """Padded rows and a mask where the lengths are not known; where they are, no mask and no search for tokens."""
    present, model = right_padded(RAGGED), trunk(causal=causal)
    unknown = learnt(model, present)
    assert attention[0]["attn_mask"] is not None
    attention.clear()
    x_BTD, position = inputs(present)
    with Waits() as waits:
        model(x_BTD, position, present, lengths=np.array(RAGGED))
        model(x_BTD, position, present)
    assert not waits.seen
    attention.clear()
    known = learnt(model, present, lengths=np.array(RAGGED))
    assert (attention[0]["attn_mask"] is None) == causal
    assert_close(known, unknown)


def by_text(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, *rest: Any, window_size: tuple[int, int]) -> Tensor:
    """What ``varlen_attn`` computes on a GPU, text by text (FlashAttention's ``cu_seqlens``)."""
    assert starts.dtype == torch.int32
    assert torch.equal(starts, rest[0])
    assert rest[1:] == (max(RAGGED),) * 2
    texts = []
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        own = (x[start:stop].transpose(0, 1)[None] for x in (q, k, v))
        mixed = torch.nn.functional.scaled_dot_product_attention(*own, is_causal=window_size == (-1, 0))
        texts.append(mixed[0].transpose(0, 1))
    return torch.cat(texts)


@pytest.mark.parametrize("causal", [False, True])
def test_the_kernel_for_flat_texts_is_told_where_they_begin(
    causal: bool, monkeypatch: pytest.MonkeyPatch, attention: Spy
) -> None:
    """The kernel itself needs a GPU; here it is played by a loop over the texts."""
    present, model = right_padded(RAGGED), trunk(causal=causal)
    wanted = learnt(model, present)
    attention.clear()
    monkeypatch.setattr(layout, "has_kernel", lambda q: True)
    monkeypatch.setattr(layout, "varlen_attn", by_text)
    assert_close(learnt(model, present), wanted)
    assert not attention


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_kernel_without_a_gpu(dtype: torch.dtype) -> None:
    assert not layout.has_kernel(torch.zeros(3, 2, 8, dtype=dtype))


def test_cached_tokens_have_a_mask_only_behind_others(attention: Spy) -> None:
    """Full rows: none for the first tokens, a mask for several behind them, none for a single one."""
    present, model = right_padded(FULL), trunk(causal=True).eval()
    x_BTD, position = inputs(present)
    with torch.no_grad():
        whole = model(x_BTD, position, present)
        cache, parts = KVCache(2, WIDTH), (slice(0, 9), slice(9, 12), slice(12, 13))
        attention.clear()
        pieces = [model(x_BTD[:, part], position[:, part], present[:, part], cache) for part in parts]
    assert [(call["attn_mask"] is not None, call["is_causal"]) for call in attention[::2]] == [
        (False, True),
        (True, False),
        (False, False),
    ]
    assert (torch.cat(pieces, 1) - whole).abs().max() < 1e-5


def test_left_padded_prompts_in_a_cache_are_hidden(attention: Spy) -> None:
    present, model = left_padded(RAGGED), trunk(causal=True).eval()
    x_BTD, position = inputs(present)
    with torch.no_grad():
        whole = model(x_BTD, position, present)
        cache, parts = KVCache(2, WIDTH), (slice(0, 12), slice(12, 13))
        attention.clear()
        pieces = [model(x_BTD[:, part], position[:, part], present[:, part], cache) for part in parts]
    assert all(call["attn_mask"] is not None for call in attention)
    assert ((torch.cat(pieces, 1) - whole) * present[..., None]).abs().max() < 1e-5


def test_whole_texts_that_are_remembered_need_no_mask(attention: Spy) -> None:
    present, model = right_padded(RAGGED), trunk(causal=True)
    wanted = learnt(model, present)
    attention.clear()
    assert_close(learnt(model, present, cache=PrefixCache.empty(2), lengths=np.array(RAGGED)), wanted)
    assert all(call["attn_mask"] is None and call["is_causal"] for call in attention)
