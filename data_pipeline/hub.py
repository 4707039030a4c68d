"""Files of the Hugging Face hub, through its own client, which reads HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE.

Files in the client's cache need no network.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal


class HubError(ValueError):
    """The hub does not provide the files. The message is one line, without the remedy."""


class Unreachable(HubError):
    """The hub does not answer, and the cache does not hold the files."""


def fetch(repository: str, patterns: Sequence[str], kind: Literal["model", "dataset"]) -> Path:
    """A folder with the files of ``repository`` that match the globs ``patterns``. Raises HubError."""
    from huggingface_hub import constants, errors, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        return Path(snapshot_download(repository, repo_type=kind, allow_patterns=list(patterns)))
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise HubError(f"{constants.ENDPOINT} offers no such {kind} ({_reason(error)})") from None
    except (OSError, errors.HTTPError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        raise Unreachable(f"{constants.ENDPOINT} cannot be reached ({_reason(error.__cause__ or error)})") from None


def _reason(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(" .:") or type(error).__name__
