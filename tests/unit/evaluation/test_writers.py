"""What all comparisons of writers rest on: seeds and batches, turns of a timing, rows over texts and over groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from dualmask.evaluation import continuation, report, statistics, tables
from dualmask.evaluation.continuation import GROUP, Task
from dualmask.evaluation.writers import Continuation, Texts, Writer, counted


class Layer(nn.Module):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states


class Echo(nn.Module):
    """Two layers; a pass for each token that it writes."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(Layer(), Layer())


def echo(model: Echo, batches: list[int]) -> Writer:
    """Writes its seeds, a pass of the network for each token."""

    def write(prompts: Texts, tokens: int, temperature: float, seeds: Sequence[int]) -> list[Continuation]:
        batches.append(len(prompts))
        for _ in range(tokens):
            model.network(torch.zeros(len(prompts), 1))
        return [Continuation([seed] * tokens, tokens) for seed in seeds]

    return Writer("echo", model, write, "network", (Layer,))


def make_task(texts: int = 16, cuts: int = 2) -> Task:
    return Task([[1]] * texts * cuts, [[2, 3, 4]] * texts * cuts, texts)


def test_seeds_belong_to_prompts_whatever_the_batch() -> None:
    batches: list[int] = []
    sample = continuation.draw(echo(Echo(), batches), make_task(), seed=7, at_once=20)
    assert batches == [20, 12]
    assert [text[0] for text in sample.texts] == [*range(7, 39)]
    assert (sample.tokens, sample.steps.tolist()) == (96, [3] * 32)
    assert (sample.passes, sample.blocks) == (3, 6)  # a text, not a batch
    alike = continuation.write(echo(Echo(), batches), [[1]] * 3, 2)
    assert [one.ids for one in alike] == [[0, 0]] * 3


def test_nothing_is_counted_behind_the_end() -> None:
    model = Echo()
    with counted(model, "network", (Layer,)) as passes:
        model.network(torch.zeros(5, 1))
    model.network(torch.zeros(5, 1))
    assert (passes.writing, passes.blocks) == (5, 10)


def test_jobs_take_turns() -> None:
    order: list[str] = []
    jobs = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = continuation.take_turns(jobs, 3, lambda: order.append("|"))
    assert "".join(order) == "ab|ab|ab|"
    assert {name: len(each) for name, each in seconds.items()} == {"a": 3, "b": 3}


def test_prompts_of_one_text_are_resampled_together() -> None:
    """The second prompt of each text repeats the first: the interval is that of half as many."""
    once = np.random.default_rng(0).random(16)
    half = make_task(cuts=1).row("share", statistics.ratio, [once, np.ones(16)], "x")
    whole = make_task().row("share", statistics.ratio, [np.tile(once, 2), np.ones(32)], "x", kind="twice")
    assert (half["n"], whole["n"], whole["kind"]) == (16, 32, "twice")
    for name in ("value", "lo", "hi"):
        assert whole[name] == pytest.approx(half[name])


def test_groups_are_whole_and_spread() -> None:
    sequences = [[number] for number in range(40)]
    assert continuation.whole_groups(sequences, 23, "") == [[5 * number // 2] for number in range(16)]
    with pytest.raises(ValueError, match="16 are needed, there are 12"):
        continuation.whole_groups(sequences[:12], 23, "16 are needed")
    columns = continuation.over_groups(sequences, lambda group: (len(group), group[0][0]))
    assert columns.tolist() == [[GROUP, GROUP * number] for number in range(5)]
    assert continuation.group_row("x", statistics.ratio, columns + 1)["n"] == 40


def test_rows_are_found_by_their_dimensions() -> None:
    rows = [
        {"metric": "steps", "value": 1.0, "method": "x", "third": "easy"},
        {"metric": "steps", "value": 2.0, "method": "x"},
        {"metric": "nats", "value": 3.0, "method": "y"},
    ]
    assert report.select(rows, metric="steps") == rows[:2]
    assert report.find(rows, metric="steps", third=None) is rows[1]
    assert report.distinct_values(rows, "method") == [("x",), ("y",)]
    assert report.values(rows[1:]) == {"steps": 2.0, "nats": 3.0}
    with pytest.raises(KeyError, match="no row with"):
        report.find(rows, metric="steps", method="y")


def test_a_table_fits_its_width_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = tables.make_table("A title", ["name", "figure"])
    table.add_row("x", tables.value({"value": 0.25}))
    tables.show([table])
    lines = capsys.readouterr().out.splitlines()
    assert "0.250" in lines[-2]
    assert max(map(len, lines)) <= tables.WIDTH
