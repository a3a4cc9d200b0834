"""What the unit tests may use: a database for read models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.unit.rebuild_helpers import engine_at


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A SQLite file; tests of other databases have a fixture of their own by this name."""
    made = engine_at(tmp_path / "read.db")
    yield made
    made.dispose()
