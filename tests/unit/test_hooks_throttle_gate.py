"""Hooks, throttles and the gate: each by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from eventmig import Registry, commands, ops, upcaster
from eventmig.config import Config
from eventmig.errors import ConfigError, CrossingError, HookError
from eventmig.gate import Gate
from eventmig.hooks import AFTER, BEFORE, run_hook
from eventmig.migrate.crossing import CUT_OVER, cross
from eventmig.migrate.states import State
from eventmig.migrate.throttle import above, first_reason, outside_hours, rest_after, while_file
from eventmig.project import Project
from tests.acceptance.support import event, fill, project

# hooks ------------------------------------------------------------------------------------------


def config(folder: Path, **hooks: str) -> Config:
    return Config.model_validate({"folder": folder, "hooks": hooks})


def script(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return name


def test_an_executable_gets_the_context_and_may_say_no(tmp_path: Path) -> None:
    keep = script(tmp_path, "keep", "cat > context.json")
    no = script(tmp_path, "no", "echo 'not on a Friday' >&2; exit 3")
    assert run_hook(config(tmp_path, before_cutover=keep), "before_cutover", {"job_id": "j"}) == ""
    found = json.loads((tmp_path / "context.json").read_text())
    assert found == {"point": "before_cutover", "job_id": "j"}
    with pytest.raises(HookError, match="ended with 3: not on a Friday"):
        run_hook(config(tmp_path, before_cutover=no), "before_cutover", {})
    assert "not on a Friday" in run_hook(config(tmp_path, ready=no), "ready", {})
    with pytest.raises(HookError, match="could not be run"):
        run_hook(config(tmp_path, before_copy="absent"), "before_copy", {})


def test_an_object_gets_the_context_and_may_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "our_hooks.py").write_text(
        "seen = []\ndef keep(context): seen.append(context)\ndef no(context): 1 / 0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    run_hook(config(tmp_path, ready="our_hooks:keep"), "ready", {"release": "2"})
    import our_hooks  # type: ignore[import-not-found]

    assert our_hooks.seen == [{"point": "ready", "release": "2"}]
    with pytest.raises(HookError, match="ZeroDivisionError"):
        run_hook(config(tmp_path, before_copy="our_hooks:no"), "before_copy", {})


def test_a_hook_for_no_point_is_refused(tmp_path: Path) -> None:
    assert run_hook(config(tmp_path), "ready", {}) == ""
    with pytest.raises(ConfigError, match="no hook before_lunch"):
        run_hook(config(tmp_path, before_lunch="x"), "ready", {})
    assert not set(BEFORE) & set(AFTER)


# throttles --------------------------------------------------------------------------------------


def test_any_one_throttle_wins_and_says_why(tmp_path: Path) -> None:
    flag, load = tmp_path / "stop", [1.0]
    checks = [while_file(flag), above("the load", lambda: load[0], 5)]
    assert first_reason(checks) == ""
    load[0] = 7
    assert first_reason(checks) == "the load is 7, above 5"
    flag.touch()
    assert first_reason(checks) == "the file stop is there"


@pytest.mark.parametrize(
    ("hours", "hour", "works"),
    [
        ("22:00-06:00", 23, True),
        ("22:00-06:00", 6, False),
        ("22:00-06:00", 5, True),
        ("08:30-17:00", 8, False),
        ("08:30-17:00", 16, True),
    ],
)
def test_hours_may_go_over_midnight(hours: str, hour: int, works: bool) -> None:
    check = outside_hours(hours, lambda: datetime(2026, 1, 1, hour, tzinfo=UTC))
    assert (check() == "") is works


def test_hours_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="no span of hours"):
        outside_hours("nine to five")
    assert rest_after(2.0, 0.5) == 2.0


# the gate ---------------------------------------------------------------------------------------


@pytest.fixture
def its(tmp_path: Path) -> Project:
    fill(tmp_path / "source.db", [event("s-1", "A", {"a": 1})])
    made = project(tmp_path, Registry([upcaster("A", 1, ops.rename("a", "b"))]))
    commands.upcast(made)
    return made


def amid_a_crossing(its: Project) -> Any:
    """The steps of a cut-over that is under way, the fence closed."""
    with commands.holding.held(its) as (sides, _):
        steps = cross(sides, CUT_OVER)
        for _ in range(3):
            next(steps)
        yield


def wsgi(gate: Gate, method: str) -> tuple[str, dict[str, str], bytes]:
    said: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"served"]

    body = gate.wsgi(app)({"REQUEST_METHOD": method}, lambda *given: said.extend(given))
    return said[0], dict(said[1]), b"".join(body)


def asgi(gate: Gate, scope: dict[str, Any]) -> list[MutableMapping[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "served"})

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {}

    asyncio.run(gate.asgi(app)(scope, receive, send))
    return sent


def test_writers_are_told_to_come_back_while_a_crossing_is_under_way(its: Project) -> None:
    gate = Gate(its.url("target", None, "2"), kept_s=0, retry_after_s=2)
    assert not gate.closed()
    assert wsgi(gate, "POST")[0] == "200 OK"
    for _ in amid_a_crossing(its):
        assert gate.closed()
        assert wsgi(gate, "GET")[0] == "200 OK"
        status, headers, body = wsgi(gate, "POST")
        assert (status, headers["retry-after"]) == ("503 Service Unavailable", "2")
        assert int(headers["content-length"]) == len(body)
        start, rest = asgi(gate, {"type": "http", "method": "POST"})
        assert (start["status"], rest["body"]) == (503, body)
        assert asgi(gate, {"type": "lifespan"}) == [{"type": "served"}]
    assert commands.cutover(its).job.state is State.REVERSE_WINDOW  # mended, and done
    assert not gate.closed()


# in a job ---------------------------------------------------------------------------------------


def test_a_hook_that_says_no_stops_the_cut_over_before_anything_happens(
    its: Project, tmp_path: Path
) -> None:
    no = script(tmp_path, "no", "exit 1")
    hooked = Project(
        its.config.model_copy(update={"hooks": {"before_cutover": no}}),
        given_registry=its.registry,
        given_lock=its.lock,
    )
    with pytest.raises(HookError):
        commands.cutover(hooked)
    assert commands.status(its).job.state is State.READY
    assert [t.state for h in commands.history(its) for t in h.transitions][-1] is State.READY


def test_settings_are_changed_from_elsewhere_and_a_job_is_measured(its: Project) -> None:
    asked = commands.steer(its, share=0.5, batch_size=7)
    assert (asked.share, asked.batch_size, asked.paused) == (0.5, 7, False)
    assert commands.steer(its, postponed=True).share == 0.5
    source = Path(its.config.folder, "source.db")
    fill(source, [event("s-2", "A", {"a": 2}), event("s-2", "A", {"a": 3})])
    before = commands.measure(its)
    assert (before.done, before.total, before.lag_events) == (1, 3, 2)
    assert before.lag_s > 0
    assert before.events_per_s is None
    assert before.controls.postponed
    commands.keep_up_once(its)
    after = commands.measure(its, before=before)
    assert (after.done, after.lag_events, after.lag_s, after.mismatches) == (3, 0, 0, 0)
    assert after.events_per_s is not None
    assert after.events_per_s > 0
    assert after.verified == 3
    with pytest.raises(CrossingError, match="cannot change names"):
        commands.cutover(its, switch=commands.holding.Switch.TABLES)
