"""The card itself: what its matrix products and its memory reach, and what a launch costs the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist

from benchmarks.engines import device
from benchmarks.gpu_check.setting import Setting, row
from benchmarks.timing import Stopwatch, median_row, peak_rate
from dualmask.evaluation.statistics import Row

LAUNCHES = 2000
REPEATS = 5


def measure(setting: Setting) -> Iterator[list[Row]]:
    for dtype in (torch.bfloat16, torch.float32):
        yield [median_row("matrix_rate", matrix_rates(setting, dtype), dtype=str(dtype).removeprefix("torch."))]
    if (peak := peak_rate()) is not None:
        yield [row("peak_rate", peak, dtype="bfloat16")]
    yield [median_row("memory_bytes_per_second", memory_rates(setting))]
    yield [median_row("launch_microseconds", launch_microseconds())]
    if setting.cuda:
        properties = torch.cuda.get_device_properties(0)
        yield [row("memory_bytes", properties.total_memory, card=properties.name, cuda=torch.version.cuda or "none")]
    yield [row("nccl", float(dist.is_nccl_available()), ok=dist.is_nccl_available() or not setting.cuda)]


def matrix_rates(setting: Setting, dtype: torch.dtype = torch.bfloat16) -> list[float]:
    """Operations a second of the product of two square matrices that are large enough for the card."""
    side, times = (256, 2) if setting.tiny else (8192, 20)
    left, right = (torch.randn(side, side, device=device(), dtype=dtype) for _ in range(2))
    into = torch.empty_like(left)
    seconds = _timed(lambda: torch.mm(left, right, out=into), times)
    return [2 * side**3 / each for each in seconds]


def memory_rates(setting: Setting) -> list[float]:
    """Bytes read and written a second by a copy."""
    source = torch.zeros(2**20 if setting.tiny else 2**30, dtype=torch.uint8, device=device())
    into = torch.empty_like(source)
    return [2 * source.numel() / each for each in _timed(lambda: into.copy_(source), 5)]


def launch_microseconds() -> list[float]:
    """Of the host, for the smallest operation, while the device is kept behind."""
    x = torch.zeros(1, device=device())
    result = []
    for _ in range(REPEATS):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(LAUNCHES):
            x.add_(1)
        result.append((time.perf_counter() - began) / LAUNCHES * 1e6)
    return result


def _timed(work: Callable[[], object], times: int) -> Sequence[float]:
    """Seconds of one of ``times`` calls, ``REPEATS`` times, behind a first one that is not counted."""
    result = []
    for _ in range(1 + REPEATS):
        watch = Stopwatch()
        for _ in range(times):
            work()
        result.append(watch.read().wall / times)
    return result[1:]
