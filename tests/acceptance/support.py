"""What the tests of whole jobs share: stores made by the event, projects, and what a file holds."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from eventmig import Registry, drop_event, merge, ops, part, rename_type, split_event, upcaster
from eventmig.config import Config
from eventmig.events import Event
from eventmig.project import Project
from eventmig.release import Lock, format_lock
from eventmig.stores.open import open_store
from tests import served

ROOT = Path(__file__).resolve().parents[2]


def url(path: Path, query: str = "") -> str:
    return f"sqlite:///{path}{query}"


def event(
    stream: str,
    type: str,
    data: bytes | object,
    *,
    version: int = 1,
    metadata: bytes | None = b'{"who": "ada"}',
    id: str | None = None,
    at: int = 1_600_000_000_000_000,
) -> Event:
    """An event without its places; `fill` gives them. The id tells the order it was made in."""
    event.made += 1  # type: ignore[attr-defined]
    number = event.made  # type: ignore[attr-defined]
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    name = f"{number:08x}-0000-4000-8000-000000000000" if id is None else id
    return Event(0, stream, 0, name, type, version, text, metadata, at + number)


event.made = 0  # type: ignore[attr-defined]


def fill(path: Path, events: Iterable[Event], query: str = "") -> list[Event]:
    """Append events to a store, which is made if need be; returns all it holds, as read back."""
    store = open_store(url(path, query), mode="create")
    try:
        with store.begin() as tx:
            for one in events:
                head = tx.heads([one.stream])[one.stream]
                tx.append_copied([one._replace(stream_position=head + 1)])
        return [e for batch in store.read_all() for e in batch]
    finally:
        store.close()


def read(path: Path, query: str = "") -> list[Event]:
    """Every event of a store, in global order."""
    store = open_store(url(path, query))
    try:
        return [e for batch in store.read_all() for e in batch]
    finally:
        store.close()


def project(
    folder: Path, registry: Registry, *, release: str = "2", lock: Lock | None = None, **config: Any
) -> Project:
    """A project with this registry frozen as a release; source.db → target.db in the folder."""
    urls = {"source": "sqlite:///source.db", "target": "sqlite:///target.db"}
    return Project(
        Config.model_validate({"folder": folder, **urls, **config}),
        given_registry=registry,
        given_lock=(lock or Lock()).with_release(registry.freeze(release)),
    )


def sql(path: Path, *statements: str | tuple[str, Sequence[object]]) -> None:
    """Run statements on a database behind eventmig's back, in one transaction."""
    connection = sqlite3.connect(path)
    try:
        for statement in statements:
            text, values = (statement, ()) if isinstance(statement, str) else statement
            connection.execute(text, values)
        connection.commit()
    finally:
        connection.close()


PASSING = {"job_id", "epoch", "begun_at", "updated_at", "at", "source", "source_identity"}
"""Columns of the ledger that tell one run from another: times, epochs, names of files."""


def contents(path: Path, *, ledger: bool = True) -> dict[str, list[tuple[object, ...]]]:
    """All tables of a database with all rows, but for what two equal runs do not share."""
    connection = sqlite3.connect(path)
    try:
        names = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            )
        ]
        found = {}
        for name in names:
            columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{name}")')]
            kept = [c for c in columns if not name.startswith("eventmig_") or c not in PASSING]
            if ledger or not name.startswith("eventmig_"):
                rows = connection.execute(f'SELECT {", ".join(kept)} FROM "{name}"').fetchall()
                found[name] = sorted(rows, key=repr)
        indexes = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY name"
        )
        return found | {"indexes": indexes.fetchall()}
    finally:
        connection.close()


def whole(path: Path) -> dict[str, bytes] | None:
    """The very bytes of a store's file (None: it is not there)."""
    return {path.name: path.read_bytes()} if path.exists() else None


# a registry with most kinds of step, and a history for it ---------------------------------------


def steps() -> list[Any]:
    return [
        upcaster("Opened", 1, ops.rename("name", "title")),
        upcaster("Opened", 2, ops.add("currency", "EUR")),
        rename_type("Old", 1, to="New"),
        drop_event("Noise", 1, why="nobody reads it"),
        split_event(
            "Both",
            1,
            part("Left", ops.drop("right")),
            part("Right", ops.drop("left"), when=ops.present("right")),
        ),
        merge("pair", "First", "Second", into="Whole", streams="pair-*", by="key"),
    ]


def history(count: int = 40) -> list[Event]:
    """A history for `steps`, over a few streams; the same every time."""
    event.made = 0  # type: ignore[attr-defined]
    kinds = [
        ("cart-{}", "Opened", {"name": "a", "n": 1}),
        ("cart-{}", "Untouched", b'{ "x" : 1.10, "x": 2 }'),
        ("pair-{}", "First", {"key": 1, "a": 1}),
        ("cart-{}", "Both", {"left": 1, "right": 2}),
        ("cart-{}", "Noise", {}),
        ("pair-{}", "Second", {"key": 1, "b": 2}),
        ("cart-{}", "Old", {"o": 1}),
    ]
    made = []
    for n in range(count):
        stream, type_, data = kinds[n % len(kinds)]
        made.append(event(stream.format(n // 7 % 3), type_, data))
    return made


# a project in files, for processes of its own ----------------------------------------------------

REGISTRY = """
from eventmig import Registry
from tests.acceptance.support import steps

registry = Registry(steps())
"""

CONFIG = """
registry = "steps_here:registry"
source = "sqlite:///source.db"
target = "sqlite:///target.db"
batch_size = 3
"""


def project_in_files(
    folder: Path, *, registry: str = REGISTRY, config: str = CONFIG, freeze: bool = True
) -> Path:
    """Write a configuration and its registry module, and freeze release 2."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "steps_here.py").write_text(textwrap.dedent(registry))
    (folder / "eventmig.toml").write_text(textwrap.dedent(config))
    if freeze:
        lock = Lock((imported(folder / "steps_here.py").registry.freeze("2"),))
        (folder / "eventmig.lock").write_text(format_lock(lock))
    return folder


def imported(path: Path) -> Any:
    """A module by its file, and no trace of it in this process."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment() -> dict[str, str]:
    """That of a process in a terminal of 80 columns."""
    given = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80"}
    return {**os.environ, **given}


def cli(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder, in a process of its own."""
    return served.run(arguments, folder, environment())


def driver(folder: Path, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a folder, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@contextmanager
def bare(*packages: str) -> Iterator[None]:
    """No trace of packages of these names, which folders have their own of, in or after a block."""

    def taken() -> dict[str, ModuleType]:
        return {n: sys.modules.pop(n) for n in list(sys.modules) if n.split(".")[0] in packages}

    modules, path = taken(), list(sys.path)
    try:
        yield
    finally:
        taken()
        sys.modules.update(modules)
        sys.path[:] = path
