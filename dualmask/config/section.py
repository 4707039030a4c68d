"""What every part of a configuration is made of. Pure: imports neither torch nor an engine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0.0)]

_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


class Names:
    """``Annotated[str, Names()]``: a string that names files, as a Path does."""


FileName = Annotated[str, Names()]  # a path, glob or address


class Section(BaseModel):
    """Unknown keys are errors; values never change after loading. ``~`` and environment variables are replaced in
    every Path and FileName, here and nowhere else."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _replace_variables(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        if not _names_files(field.annotation) and not any(isinstance(part, Names) for part in field.metadata):
            return value
        if isinstance(value, (list, tuple)):
            return [expanded(part) if isinstance(part, str) else part for part in value]
        return expanded(value) if isinstance(value, str) else value


def _names_files(annotation: Any) -> bool:
    if annotation is Path or isinstance(annotation, Names):
        return True
    return any(_names_files(part) for part in get_args(annotation))


def expanded(path: str) -> str:
    """``path`` with the home folder for ``~`` and the values of ``$NAME`` and ``${NAME}``. Raises ValueError."""
    for name in _VARIABLE.findall(path):
        if name.strip("{}") not in os.environ:
            raise ValueError(
                f"{path!r}: there is no environment variable {name.strip('{}')}: set it, or write the path out"
            )
    result = os.path.expanduser(os.path.expandvars(path))
    if path.startswith("~") and result.startswith("~"):
        raise ValueError(f"{path!r}: there is no home folder for it: set HOME, or write the path out")
    return result
