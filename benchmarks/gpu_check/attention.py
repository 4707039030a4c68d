"""Which implementation of attention the steps of each stage took, by the operators and kernels of a profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch.profiler import profile

from benchmarks.gpu_check.setting import Setting, row, wrong
from benchmarks.gpu_check.workload import Workload, cases
from dualmask.evaluation.statistics import Row
from dualmask.training.profile import device_work, host_operators, profiler

# in the order in which one is looked for: an operator of the first kind calls those of others
BACKENDS = {
    "cuDNN": ("aten::_scaled_dot_product_cudnn_attention",),
    "flash": ("aten::_scaled_dot_product_flash_attention", "aten::_scaled_dot_product_flash_attention_for_cpu"),
    "memory-efficient": ("aten::_scaled_dot_product_efficient_attention",),
    "plain products": ("aten::_scaled_dot_product_attention_math",),
}
VARIABLE_LENGTH = "aten::_flash_attention_forward"  # called by "flash", and by itself for texts laid end to end
KERNELS = ("flash", "fmha", "attention", "sdpa")  # parts of names


def measure(setting: Setting) -> Iterator[list[Row]]:
    for case in setting.in_time(cases(setting)):
        try:
            with Workload(case) as workload, profiler() as profiled:
                workload.step(9)
        except RuntimeError as error:
            yield [wrong(case.stage, error)]
            continue
        calls = {name: number for name, number in backends(profiled).items() if number}
        yield [row("attention_calls", number, stage=case.stage, backend=name) for name, number in calls.items()] or [
            wrong(case.stage, "no operator of attention was seen")
        ]
        yield [
            row("kernel_milliseconds", nanoseconds / 1e6, stage=case.stage, kernel=name[:60])
            for name, nanoseconds in kernels(profiled).most_common(3)
        ]


def backends(profiled: profile) -> dict[str, int]:
    """Forward calls of each."""
    seen = Counter(name for name, _, _ in host_operators(profiled))
    calls = {backend: sum(seen[name] for name in names) for backend, names in BACKENDS.items()}
    flash = seen["aten::_scaled_dot_product_flash_attention"]
    return calls | {"flash, variable length": max(seen[VARIABLE_LENGTH] - flash, 0)}


def kernels(profiled: profile) -> Counter[str]:
    """Nanoseconds of each kernel of the device whose name speaks of attention."""
    spent: Counter[str] = Counter()
    for name, begin, end in device_work(profiled):
        if any(part in name.lower() for part in KERNELS):
            spent[name] += end - begin
    return spent
