"""Runs a script that reads damaged files, ``SCRIPT FOLDER FIRST STOP``, in a process of its own: a crash is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def fuzzed(script: Path, first: int, stop: int, folder: Path) -> tuple[list[dict[str, Any]], str, int]:
    """A result for each seed, what the script has written to stderr, and its peak memory in megabytes."""
    folders = [str(script.parents[3]), str(script.parent)]
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(first), str(stop)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"ended by {done.returncode} in {lines[-1]}: {done.stderr[-2000:]}"
    results = [line for line in lines if "wrong" in line]
    assert len(results) == stop - first
    return results, done.stderr, lines[-1]["peak megabytes"]
