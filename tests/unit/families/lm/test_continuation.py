"""Continuing texts with the two language models: alone or together, with or without the cache, the same tokens."""

import itertools
from pathlib import Path

import pytest
import torch
from tiny_model import language_model_config, write_random_model

from dualmask.core.batch import Batch
from dualmask.core.lexicon import read_lexicon
from dualmask.core.sampling import GREEDY, SamplingParams
from dualmask.core.tokenizer import BOS_ID, EOS_ID, MASK_ID, SPECIAL_IDS
from dualmask.evaluation.writers import counted
from dualmask.families.lm import diffusion
from dualmask.inference import autoregressive
from dualmask.inference.folder import ModelFolderError, open_folder
from dualmask.inference.loading import Loaded, load
from launcher import command

PROMPTS = [[40, 41, 42, 43, 44, 45, 46], [50], [], [60, 61, 62]]
SEEDS = [5, 6, 7, 8]
WARM = SamplingParams(temperature=1.0)


@pytest.fixture(scope="module")
def folders(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {
        family: write_random_model(root / family, language_model_config(family), model_folder / "tokenizer.model")
        for family in ("autoregressive", "diffusion")
    }


@pytest.fixture(scope="module")
def left_to_right(folders: dict[str, Path]) -> Loaded:
    return load(folders["autoregressive"], "cpu", family="autoregressive")


@pytest.fixture(scope="module")
def unmasking(folders: dict[str, Path]) -> Loaded:
    return load(folders["diffusion"], "cpu", family="diffusion")


@pytest.mark.parametrize("sampling", [GREEDY, WARM, SamplingParams(temperature=0.9, top_p=0.8)])
def test_cache_and_companions_change_nothing(left_to_right: Loaded, sampling: SamplingParams) -> None:
    model, seeded = left_to_right.model, sampling.with_seeds(SEEDS)
    together = autoregressive.write(model, PROMPTS, tokens=20, sampling=seeded)
    assert together == autoregressive.write(model, PROMPTS, tokens=20, sampling=seeded, cached=False)
    for prompt, own, text in zip(PROMPTS, seeded, together, strict=True):
        assert [text] == autoregressive.write(model, [prompt], tokens=20, sampling=[own])
    assert not SPECIAL_IDS & {token for text in together for token in text}
    if sampling.temperature:
        others = sampling.with_seeds([9, 10, 11, 12])
        assert together != autoregressive.write(model, PROMPTS, tokens=20, sampling=others)


def test_greedy_writing_is_what_the_training_forward_finds_likeliest(left_to_right: Loaded) -> None:
    model = left_to_right.model
    (text,) = autoregressive.write(model, [PROMPTS[0]], tokens=15, least=15, sampling=[GREEDY])
    row = torch.tensor([[BOS_ID, *PROMPTS[0], *text, EOS_ID]])
    out = model(Batch(row, torch.tensor([row.shape[1]]), torch.tensor([0])))
    logits = out.logits[:, : model.vocab_size].detach()
    logits[:, list(SPECIAL_IDS)] = -torch.inf
    assert logits.argmax(-1)[len(PROMPTS[0]) : -1].tolist() == text


def test_a_text_ends_at_eos_but_not_too_early(folders: dict[str, Path]) -> None:
    model, warm = load(folders["autoregressive"], "cpu", family="autoregressive").model, WARM.with_seeds(SEEDS)
    with torch.no_grad():
        model.table.output_bias[EOS_ID] = 1000.0
    assert autoregressive.write(model, PROMPTS, tokens=9, sampling=warm) == [[]] * 4
    assert [len(text) for text in autoregressive.write(model, PROMPTS, tokens=9, least=3, sampling=warm)] == [3] * 4
    with counted(model, "lm") as passes:
        autoregressive.write(model, PROMPTS, tokens=9, least=3, sampling=warm)
    assert passes.writing == 4 * len(PROMPTS)  # nobody is waited for
    assert autoregressive.write(model, PROMPTS, tokens=0, sampling=warm) == [[]] * 4


def test_each_token_is_read_once(left_to_right: Loaded) -> None:
    widths: list[int] = []
    handle = left_to_right.model.lm.register_forward_hook(lambda module, inputs, out: widths.append(out.shape[1]))
    autoregressive.write(left_to_right.model, PROMPTS, tokens=6, least=6, sampling=WARM.with_seeds(SEEDS))
    handle.remove()
    assert widths == [8, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("order", diffusion.ORDERS)
@pytest.mark.parametrize("steps", [1, 5, 12, 100])
def test_unmasking_writes_the_asked_length_in_the_asked_passes(unmasking: Loaded, order: str, steps: int) -> None:
    model = unmasking.model
    allowed = read_lexicon(unmasking.tokenizer).writable
    options = {"tokens": 12, "steps": steps, "allowed": allowed, "order": order}
    seeded = WARM.with_seeds(SEEDS)
    with counted(model, "lm") as passes:
        together = diffusion.write(model, PROMPTS, sampling=seeded, **options)
    assert passes.writing == min(steps, 12) * len(PROMPTS)
    assert [len(text) for text in together] == [12] * 4
    assert allowed[torch.tensor(together)].all()
    for prompt, own, text in zip(PROMPTS, seeded, together, strict=True):
        assert [text] == diffusion.write(model, [prompt], sampling=[own], **options)


@pytest.mark.parametrize("order", diffusion.ORDERS)
def test_what_is_decided_stays_and_the_surest_come_first(unmasking: Loaded, order: str) -> None:
    """Step by step, as the model sees it: fewer masks each time, the decided tokens where they were."""
    model, drafts, confidences = unmasking.model, [], []
    fill = model.fill

    def spy(tokens: torch.Tensor, length: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        logits = fill(tokens, length, slot)
        drafts.append(tokens[0].tolist())
        allowed = read_lexicon(unmasking.tokenizer).writable
        best = logits[:, : model.vocab_size].masked_fill(~allowed, -torch.inf).softmax(-1).amax(-1)
        confidences.append(dict(zip(slot.tolist(), best.tolist(), strict=True)))
        return logits

    model.fill = spy
    allowed = read_lexicon(unmasking.tokenizer).writable
    try:
        diffusion.write(model, [PROMPTS[3]], tokens=12, steps=4, allowed=allowed, order=order, sampling=[GREEDY])
    finally:
        del model.fill
    assert [len(slots) for slots in confidences] == [12, 9, 6, 3]
    for before, after, known in zip(confidences, confidences[1:], drafts[1:], strict=False):
        decided = before.keys() - after.keys()
        assert known[1:4] == PROMPTS[3]
        if order == "confidence":
            assert min(before[slot] for slot in decided) >= max(before[slot] for slot in after)
    for before, after in itertools.pairwise(drafts):
        assert all(old == new for old, new in zip(before, after, strict=True) if old != drafts[0][4])


def lowest_ratio(prob: torch.Tensor, written: torch.Tensor) -> float:
    """The least share of the likeliest token's probability that a written token has: [M, V] and [M]."""
    return (prob.gather(1, written[:, None]).squeeze(1) / prob.amax(1)).min().item()


def test_min_p_bounds_what_follows(left_to_right: Loaded) -> None:
    model, temperature, min_p = left_to_right.model, 2.0, 0.9
    lowest = {}
    for limit in (0.0, min_p):
        sampling = SamplingParams(temperature, min_p=limit).with_seeds(range(8))
        written = autoregressive.write(model, [PROMPTS[0]] * 8, tokens=15, least=15, sampling=sampling)
        rows = torch.tensor([[BOS_ID, *PROMPTS[0], *text, EOS_ID] for text in written])
        logits = model(Batch(rows, torch.full((8,), rows.shape[1]), torch.arange(8))).logits.detach()
        logits = logits[:, : model.vocab_size].view(8, -1, model.vocab_size)[:, len(PROMPTS[0]) : -1]
        logits[..., list(SPECIAL_IDS)] = -torch.inf
        lowest[limit] = lowest_ratio((logits / temperature).softmax(-1).flatten(0, 1), torch.tensor(written).flatten())
    assert lowest[min_p] >= min_p - 1e-4
    assert lowest[0.0] < min_p / 2


def test_min_p_bounds_what_is_unmasked(unmasking: Loaded) -> None:
    model, temperature, min_p = unmasking.model, 2.0, 0.9
    allowed = read_lexicon(unmasking.tokenizer).writable
    draft = torch.tensor([[BOS_ID, *PROMPTS[3], *[MASK_ID] * 12, EOS_ID]])
    with torch.no_grad():
        logits = model.fill(draft, torch.tensor([17]), torch.arange(4, 16))[:, : model.vocab_size]
    prob = (logits.masked_fill(~allowed, -torch.inf) / temperature).softmax(-1)
    lowest = {}
    for limit in (0.0, min_p):
        sampling = SamplingParams(temperature, min_p=limit).with_seeds(range(8))
        written = diffusion.write(model, [PROMPTS[3]] * 8, tokens=12, steps=1, allowed=allowed, sampling=sampling)
        lowest[limit] = min(lowest_ratio(prob, torch.tensor(text)) for text in written)
    assert lowest[min_p] >= min_p - 1e-4
    assert lowest[0.0] < min_p / 2


def test_a_folder_of_another_family_is_one_clear_line(
    folders: dict[str, Path], model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelFolderError, match="of the family autoregressive; give one of the family dualmask"):
        load(folders["autoregressive"], "cpu")
    with pytest.raises(ModelFolderError, match="family dualmask; give one of the family diffusion"):
        open_folder(model_folder, "diffusion")
    assert command.run(["edit", "--model", str(folders["autoregressive"]), "Some text."]) == 2
    out, message = capfd.readouterr()
    assert out == ""
    assert message.count("\n") == 1
    assert "autoregressive" in message
