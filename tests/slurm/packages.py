"""Debian packages that tests need, installed where that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess


def install(packages: list[str], programs: list[str]) -> str | None:
    """Installs Debian packages unless their programs are there; says why that could not be."""
    if all(map(shutil.which, programs)):
        return None
    if shutil.which("apt-get") is None:
        return f"{' '.join(packages)}: not installed, and there is no apt-get to install them"
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # no daemon is started by that
    try:
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(["apt-get", *arguments], env=quiet, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return f"apt-get could not install {' '.join(packages)} within 300 s"
    if not all(map(shutil.which, programs)):
        return f"apt-get could not install {' '.join(packages)}: {done.stderr.strip()[-300:]}"
    return None
