"""A rebuild that is stopped, killed or fails leaves all as it was, and goes on where it was."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from eventmig.errors import RebuildError
from eventmig.rebuild import ReadModel, RebuildProgress
from tests.unit.read_model_helpers import StopError, daily, orders, rebuild, sales, stop_after, sums
from tests.unit.rebuild_helpers import MemorySource, engine_at, names_in, rows_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("commits", range(7))
def test_stopped_anywhere_the_same_call_ends_as_if_it_never_was(
    engine: Engine, commits: int
) -> None:
    source = MemorySource(orders(40))
    rebuild(daily(cents=2, version=0), engine, source)
    with pytest.raises(StopError):
        rebuild(daily(), engine, source, batch_size=10, progress=stop_after(commits))
    swapped = commits == 6  # stopped while the swap was told
    assert rows_of(engine, sales) == sums(40, cents=1 if swapped else 2)
    result = rebuild(daily(), engine, source, batch_size=10)
    assert result.resumed is not swapped
    assert result.events_read == 40
    assert rows_of(engine, sales) == sums(40)


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        (daily(cents=2, version=2), {}, "its tables, handlers or version have changed"),
        (daily(), {"release": "2"}, "it was built for the release 1"),
        (daily(), {"source": MemorySource(orders(40), "copy")}, "another source"),
    ],
)
def test_a_half_built_generation_of_another_making_is_begun_anew(
    engine: Engine, model: ReadModel, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(StopError):
        rebuild(daily(), engine, MemorySource(orders(40)), batch_size=10, progress=stop_after(2))
    result = rebuild(model, engine, options.pop("source", MemorySource(orders(40))), **options)
    assert not result.resumed
    assert reason in str(result.restarted)
    assert rows_of(engine, sales) == sums(40, cents=model.version)
    assert {n for n in names_in(engine) if "__g" in n} == set()


def test_a_handler_that_raises_leaves_all_as_it_was_and_goes_on_when_mended(
    engine: Engine,
) -> None:
    events = orders(40)
    broken = [*events[:24], events[24]._replace(data=b'{"day": 5}'), *events[25:]]
    rebuild(daily(version=0), engine, MemorySource(orders(3)))
    with pytest.raises(RebuildError, match="does not fit its handler") as raised:
        rebuild(daily(), engine, MemorySource(broken), batch_size=10)
    where = raised.value.where
    assert (where.event_id, where.type, where.stream) == ("event-25", "OrderPlaced", "order-3")
    assert (where.global_position, where.stream_position) == (25, 4)
    assert str(where.handler).endswith("placed")
    assert rows_of(engine, sales) == sums(3)
    result = rebuild(daily(), engine, MemorySource(events), batch_size=10)  # the event is mended
    assert result.resumed
    assert rows_of(engine, sales) == sums(40)


def test_a_killed_process_resumes(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from tests.unit.rebuild_helpers import MemorySource, engine_at
        from tests.unit.read_model_helpers import daily, orders, rebuild

        def tell(progress):
            if progress.events_read >= 30:
                os.kill(os.getpid(), signal.SIGKILL)

        rebuild(daily(), engine_at(sys.argv[1]), MemorySource(orders(40)),
                batch_size=10, progress=tell)
        """
    )
    path = tmp_path / "read.db"
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -9
    engine = engine_at(path)
    told: list[RebuildProgress] = []
    result = rebuild(daily(), engine, MemorySource(orders(40)), progress=told.append)
    assert result.resumed
    assert told[0].events_read == 30
    assert rows_of(engine, sales) == sums(40)
    engine.dispose()
