"""Transformer blocks as compiled functions (``parallel.compile``): fewer and larger kernels, for a host that cannot
start them fast enough."""

from __future__ import annotations

import os
import shutil

from torch import nn

from dualmask.nn.block import Block
from dualmask.training.errors import TrainingError

COMPILERS = ("g++", "clang++", "c++")


def compile_blocks(model: nn.Module) -> None:
    """Compiles each block when it is first called, once for all of equal shape and for any width of the texts.

    Names and values of parameters stay as they are. Raises TrainingError where there is no compiler.
    """
    own = [os.environ["CXX"]] if "CXX" in os.environ else []
    if not any(shutil.which(name) for name in [*own, *COMPILERS]):
        raise TrainingError(
            "parallel.compile=true needs a C++ compiler, and there is none: install g++, or set it false"
        )
    for module in model.modules():
        if isinstance(module, Block):
            module.compile(dynamic=True)
