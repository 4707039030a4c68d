"""A section's own process: imports, waits for its limit, measures, and writes each result as soon as there is one."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.schedule import FAILED, LATE, PASSED
from benchmarks.gpu_check.setting import OutOfTime, Setting
from dualmask.evaluation.report import write
from dualmask.evaluation.statistics import Row


def main() -> int:
    parser = argparse.ArgumentParser(prog="gpu_check.section")
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    module = importlib.import_module(f"benchmarks.gpu_check.{arguments.name}")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # closes what the schedule listens to: ready
    limit = sys.stdin.readline()
    if not limit:
        return FAILED  # whoever started it is gone
    return measure(module, arguments.name, Setting(arguments.out, arguments.tiny, float(limit)))


def measure(module: Any, name: str, setting: Setting) -> int:
    """Exit code; the rows are in ``out/NAME.json``, with what was left out for want of time."""
    rows: list[Row] = []
    left_out = None
    try:
        for new in module.measure(setting):
            rows += new
            write(setting.out / f"{name}.json", name, rows)
    except OutOfTime as late:
        left_out = str(late)
        write(setting.out / f"{name}.json", name, rows, left_out=left_out)
    if not all(row.get("ok", True) for row in rows):
        return FAILED
    return PASSED if left_out is None and rows else LATE


if __name__ == "__main__":
    sys.exit(main())
