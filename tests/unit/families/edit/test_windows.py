import torch

from dualmask.core.batch import Batch
from dualmask.core.lexicon import Lexicon
from dualmask.core.tokenizer import BOS_ID, EOS_ID
from dualmask.families.edit.infer.text import Writer
from dualmask.families.edit.infer.windows import WindowedModel, cut
from dualmask.families.edit.told import ToldGaps
from dualmask.inference.loading import Loaded
from dualmask.ops.gaps import Skeleton


def test_every_place_is_in_exactly_one_core_and_every_window_fits() -> None:
    for capacity in (6, 14, 62):
        for length in [*range(2, 200), 1000, 1001]:
            windows = cut(0, length, capacity, border=[place % 3 for place in range(length)])
            covered = [place for window in windows for place in range(window.start, window.end)]
            assert covered == list(range(length - 1)), (capacity, length)
            for window in windows:
                assert window.left <= max(window.start, 1)
                assert window.end <= window.right <= length - 1
                assert window.right - window.left <= capacity
    assert len(cut(0, 64, 62, [])) == 1


def test_windows_begin_where_words_begin() -> None:
    border = [2 if place % 20 == 5 else place % 2 for place in range(300)]
    starts = [window.start for window in cut(0, 300, 40, border)][1:]
    assert all(border[start] > 0 for start in starts)
    assert any(border[start] == 2 for start in starts)


def windowed(loaded: Loaded, lexicon: Lexicon) -> WindowedModel:
    return WindowedModel(loaded.model, lexicon)


def test_a_draft_that_fits_is_read_as_it_is(loaded: Loaded, writer: Writer) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(262, loaded.tokenizer.vocab_size, (3, 20), generator=generator)
    length = torch.tensor([20, 9, 2])
    tokens[:, 0] = BOS_ID
    tokens[torch.arange(3), length - 1] = EOS_ID
    model = windowed(loaded, writer.lexicon)
    rate = torch.full((3,), 0.5)
    reading = model.read(tokens, length, rate, torch.ones(tokens.shape))
    logits = reading.logits
    gone = torch.randint(-1, 4, (3, tokens.shape[1] - 1), generator=torch.Generator().manual_seed(2))
    nothing = torch.zeros(*gone.shape, 0, dtype=torch.long)
    gaps = model.gap_logits(Skeleton(tokens, length), torch.zeros(3), ToldGaps(gone, nothing))
    for row, size in enumerate(length.tolist()):
        alone = tokens[row : row + 1, :size]
        batch = Batch(alone, length[row : row + 1], torch.zeros(1, dtype=torch.long))
        exact = loaded.model.read(batch, rate[:1])
        assert torch.allclose(logits.unary[row, : size - 1], exact.logits.unary[0, :-1], atol=1e-4)
        assert torch.allclose(logits.wrong[row, : size - 1], exact.logits.wrong[0, :-1], atol=1e-4)
        assert torch.allclose(logits.pairwise[row, : size - 1], exact.logits.pairwise[0, :-1], atol=1e-4)
        assert torch.allclose(reading.gate_logit[row, : size - 1], exact.gate_logit, atol=1e-4)
        told = ToldGaps(gone[row : row + 1, : size - 1], torch.zeros(1, size - 1, 0, 1))
        counts = loaded.model.count(Skeleton(alone, length[row : row + 1]), told=told).gap_logits
        assert torch.allclose(gaps[row, : size - 1], counts[0], atol=1e-4)


def test_fill_writes_the_slots_and_nothing_else(loaded: Loaded, writer: Writer) -> None:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(262, loaded.tokenizer.vocab_size, (2, 150), generator=generator)
    tokens[:, 0], tokens[:, -1] = BOS_ID, EOS_ID
    slots = torch.rand(2, 150, generator=generator) < 0.3
    slots[:, 0], slots[:, -1] = False, False
    seen = []

    def choose(logits: torch.Tensor, slot: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert logits.shape == (len(slot), loaded.tokenizer.vocab_size)
        seen.append(slot)
        return slot + 1000, torch.full(slot.shape, 0.5)

    filled, confidence = windowed(loaded, writer.lexicon).fill(
        tokens, torch.tensor([150, 150]), slots, torch.full((2, 150, 1), -1), choose
    )
    place = torch.arange(300).view(2, 150)
    assert torch.equal(torch.cat(seen).sort().values, place[slots])
    assert torch.equal(filled, torch.where(slots, place + 1000, tokens))
    assert torch.equal(confidence, torch.where(slots, 0.5, 1.0))


def test_words_and_pairs_are_asked_in_one_forward_and_get_the_answers_of_two(loaded: Loaded, writer: Writer) -> None:
    tokens, length, inner, others = _two_texts(loaded)
    words, pairs = inner.clone(), inner & inner.roll(-1, 1)
    words[:, ::3], pairs[:, ::2] = False, False
    model, nothing = windowed(loaded, writer.lexicon), torch.zeros_like(inner)
    forwards = []
    hook = loaded.model.filler.register_forward_hook(lambda *_: forwards.append(1))
    both = model.reconsider(tokens, length, words, pairs, others)
    assert len(forwards) == 1
    hook.remove()
    apart = model.reconsider(tokens, length, words, nothing, others)
    swaps = model.reconsider(tokens, length, nothing, pairs, others)
    assert torch.equal(both.ids, apart.ids)
    torch.testing.assert_close(both.prob, apart.prob)
    torch.testing.assert_close(both.swap_prob, swaps.swap_prob)
    assert (both.prob[words] > 0).all()
    assert (both.prob[~words] == 0).all()
    assert (both.swap_prob[pairs] > 0).all()
    assert (both.swap_prob[~pairs] == 0).all()


def test_log_probabilities_of_some_tokens_are_those_of_all(loaded: Loaded, writer: Writer) -> None:
    tokens, length, inner, _ = _two_texts(loaded)
    asked = inner.clone()
    asked[:, 5:] = False
    model, shapes = windowed(loaded, writer.lexicon), []
    hook = loaded.model.filler.trunk.register_forward_hook(lambda _, inputs, __: shapes.append(len(inputs[0])))
    some, every = model.log_probs(tokens, length, asked), model.log_probs(tokens, length, inner)
    hook.remove()
    torch.testing.assert_close(some, every * asked)
    assert shapes == [2 * 4, 2 * 8], "turns in which nothing is asked are not read"


def _two_texts(loaded: Loaded) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens and length, what is between BOS and EOS, and two words that may be meant in place of each."""
    generator, size = torch.Generator().manual_seed(0), loaded.tokenizer.vocab_size
    tokens = torch.randint(262, size, (2, 20), generator=generator)
    length = torch.tensor([20, 14])
    tokens[:, 0] = BOS_ID
    tokens[torch.arange(2), length - 1] = EOS_ID
    place = torch.arange(20)
    others = torch.randint(262, size, (size, 2), generator=generator)
    return tokens, length, (place > 0) & (place < length[:, None] - 1), others
