"""Writing files so that a reader sees the old one or the new one, never half of either."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from eventmig.errors import ConfigError, Where


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text to a file by way of a temporary one beside it.

    Raises `ConfigError` where the folder cannot be written; then nothing is left behind.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ConfigError(
            f"cannot write here: {error.strerror}",
            where=Where(file=str(path)),
            remedy="check that the folder exists and may be written",
        ) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"cannot write this file: {error.strerror}",
            where=Where(file=str(path)),
            remedy="make room, or write elsewhere",
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
