"""What `eventmig init` writes: a small project that runs, from the templates in the wheel.

Writes all of its files or none, and never over one that is there. Reads no
configuration and opens no store.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Final

from eventmig.errors import ConfigError, Where

FILES: Final = (
    "eventmig.toml",
    "sample.jsonl",
    "upcasters/README.md",
    "upcasters/__init__.py",
    "upcasters/orders.py",
    "projections/__init__.py",
    "projections/sales_per_day.py",
)
"""The files of a new project, relative to its folder; the configuration first."""

_SUFFIX = ".tmpl"  # so that no tool takes a template for a module of the engine


def init(folder: Path, *, name: str | None = None) -> list[Path]:
    """Write a new project into a folder, which is made if need be; returns its files.

    `name` is what the comments call it, by default the folder's own name. Raises
    `ConfigError` where a file is there already, naming each, or the folder cannot be
    written; then nothing was written.
    """
    title = _title(folder.resolve().name if name is None else name)
    texts = {file: _template(file).replace("{{name}}", title) for file in FILES}
    _refuse_existing(folder)
    with _written_or_undone(folder) as made:
        for place in _folders(folder):
            if not place.is_dir():
                place.mkdir()
                made.append(place)
        for file, text in texts.items():
            path = folder / file
            _write_new(path, text)
            made.append(path)
    return [folder / file for file in FILES]


def _template(file: str) -> str:
    found = resources.files("eventmig").joinpath("templates", *PurePosixPath(file + _SUFFIX).parts)
    return found.read_text("utf-8")


def _title(name: str) -> str:
    """The name on one line, without what a comment could not hold."""
    line = " ".join(name.split())
    return "".join(c for c in line if c.isprintable()) or "this project"


def _refuse_existing(folder: Path) -> None:
    if os.path.lexists(folder) and not folder.is_dir():
        raise ConfigError(
            "this is no folder",
            where=Where(file=str(folder)),
            remedy="name a folder to write the project into",
        )
    there = [file for file in FILES if os.path.lexists(folder / file)]
    if there:
        raise ConfigError(
            f"{'these files are' if len(there) > 1 else 'this file is'} there already: "
            f"{', '.join(there)}",
            where=Where(file=str(folder)),
            remedy="use an empty folder, or move them away; nothing was written",
        )


def _folders(folder: Path) -> list[Path]:
    """Every folder that the files need, outermost first."""
    needed = {parent for file in FILES for parent in (folder / file).parents}
    return sorted(needed, key=lambda path: len(path.parts))


def _write_new(path: Path, text: str) -> None:
    """Make a file that appears whole; `FileExistsError` where one came in between."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).chmod(0o644)
        try:
            os.link(beside, path)  # unlike a rename, never over a file that is there
        except (AttributeError, NotImplementedError, OSError) as error:
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, "a file came in between", str(path)) from error
            Path(beside).rename(path)  # a file system without links
    finally:
        Path(beside).unlink(missing_ok=True)


@contextmanager
def _written_or_undone(folder: Path) -> Iterator[list[Path]]:
    """Files and folders put on the list are removed again where the block fails."""
    made: list[Path] = []
    try:
        yield made
    except BaseException as error:
        for path in reversed(made):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
        if isinstance(error, OSError):
            raise ConfigError(
                f"cannot write here: {error.strerror or error}",
                where=Where(file=str(error.filename or folder)),
                remedy="check that the folder may be written and has room; nothing was left there",
            ) from error
        raise
