import torch

from dualmask.families.edit.config import StopConfig
from dualmask.families.edit.stopping import Reason, draft_digest, fill_confidence, reasons


def test_a_digest_knows_every_token_and_every_place_but_no_padding() -> None:
    tokens = torch.randint(0, 30_000, (200, 40), generator=torch.Generator().manual_seed(0))
    length = torch.randint(2, 41, (200,), generator=torch.Generator().manual_seed(1))
    digest = draft_digest(tokens, length)
    padded = torch.nn.functional.pad(tokens, (0, 9), value=7)
    padded[torch.arange(49) >= length[:, None]] = 5
    assert torch.equal(draft_digest(padded, length), digest)
    assert len(digest.unique()) == 200


def test_near_drafts_have_different_digests() -> None:
    """All substitutions of one token, all swaps, all lengths of a repetitive text."""
    text = torch.tensor([6, 7, 8, 9] * 8)
    drafts = [text]
    for position in range(32):
        for token in range(6, 40):
            drafts.append(text.clone().index_fill(0, torch.tensor([position]), token))
        for other in range(position):
            swapped = text.clone()
            swapped[[position, other]] = text[[other, position]]
            drafts.append(swapped)
    drafts = torch.stack(drafts).unique(dim=0)
    whole = torch.full((len(drafts),), 32)
    shorter = [draft_digest(text[None], torch.tensor([length])) for length in range(32)]
    digests = torch.cat([draft_digest(drafts, whole), *shorter])
    assert len(digests.unique()) == len(drafts) + 32


def ask(stop: StopConfig, **changes: object) -> Reason:
    """The reason after an eventful round: nothing stops it but what ``changes`` say."""
    facts = {"changed": True, "digest": 5, "seen": [3, 4], "confidence": 0.5, "distance": 0.5} | changes
    tensors = {name: torch.tensor([fact]) for name, fact in facts.items()}
    return Reason(int(reasons(stop, **tensors)))


def test_the_first_criterion_that_holds_is_the_reason() -> None:
    off, on = StopConfig(), StopConfig(confidence=0.9, edit_distance=0.1)
    assert ask(off) == ask(on) == Reason.NONE
    assert ask(off, confidence=1.0, distance=0.0) == Reason.NONE
    everything = {"changed": False, "seen": [5, 4], "confidence": 0.9, "distance": 0.0}
    for reason, fact in zip(list(Reason)[1:], list(everything), strict=True):
        assert ask(on, **everything) == reason
        del everything[fact]
    assert ask(on, **everything) == Reason.NONE


def test_criteria_are_asked_for_each_text_alone() -> None:
    got = reasons(
        StopConfig(confidence=0.9),
        changed=torch.tensor([True, False, True, True]),
        digest=torch.tensor([1, 2, 3, 4]),
        seen=torch.tensor([[0], [2], [3], [0]]),
        confidence=torch.tensor([0.95, 0.0, 0.0, 0.2]),
        distance=torch.zeros(4),
    )
    assert [Reason(one).word for one in got.tolist()] == ["confident", "nothing_to_do", "seen_before", "rounds"]


def test_a_round_that_fills_nothing_is_not_a_sure_one() -> None:
    confidence = torch.tensor([[1.0, 0.4, 0.6], [1.0, 1.0, 1.0]])
    slots = torch.tensor([[False, True, True], [False, False, False]])
    assert torch.allclose(fill_confidence(confidence, slots), torch.tensor([0.5, 0.0]))
