"""A shop that never rests, and a job whose processes are killed: what became of each append?

Writers append all the time, where the route says, and log each append that was acknowledged
outside of the store. Meanwhile the job is taken across and back; every process that does so
is killed (SIGKILL) at a failpoint, or at a random moment, and another goes on. In the end
both sides must hold each acknowledged event once, in the order of its writer.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from eventmig import commands
from eventmig.errors import EventmigError, FencedError, JobError
from eventmig.events import Event, NewEvent
from eventmig.live import LiveStore, look_up
from eventmig.migrate import failpoints
from eventmig.migrate.states import Side, State, Switch
from eventmig.project import Project
from eventmig.stores.base import ANY
from eventmig.stores.open import open_store
from tests.acceptance.support import event, project_in_files
from tests.acceptance.test_postgres_jobs import fill
from tests.forks import fork, started

REGISTRY = """
from eventmig import Registry, ops, rename_type, upcaster

registry = Registry([
    upcaster("Placed", 1, ops.rename("mail", "email")),
    rename_type("Old", 1, to="New"),
])
"""
CONFIG = """
registry = "steps_here:registry"
source = "{source}"
target = "{target}"
batch_size = 20
"""


def write(folder: Path, name: str, urls: tuple[str, str], switch: Switch, pause: float) -> None:
    """Append until the folder has a file `stop`, and log what was acknowledged. In a fork."""
    gc.freeze()  # connections that are the parent's are not this process' to close
    by_route = switch is Switch.ROUTE
    store = LiveStore(*urls, kept_s=0.5) if by_route else open_store(urls[0], mode="write")
    stop, count, longest = folder / "stop", 0, 0.0
    with (folder / f"{name}.log").open("a", buffering=1) as log:
        while not stop.exists():
            count += 1
            stream = f"cart-{name}-{count % 3}" if count % 4 else "cart-shared"
            side = store.route().side if isinstance(store, LiveStore) else Side.OLD
            kind = "Placed" if count % 2 else ("Old" if side is Side.OLD else "New")
            version = 2 if kind == "Placed" and side is Side.NEW else 1
            data = {"email" if version == 2 else "mail": "a", "n": count}
            event = NewEvent(kind, json.dumps(data).encode(), version, None, f"{name}-{count:08d}")
            began = time.monotonic()
            try:
                store.append(stream, [event], expected=ANY)
            except FencedError:  # the plain store does not wait; this application does
                count -= 1
                time.sleep(0.01)
                continue
            longest = max(longest, time.monotonic() - began)
            log.write(f"{event.id}\t{stream}\n")
            time.sleep(pause)
    (folder / f"{name}.longest").write_text(f"{longest:.3f}")
    os._exit(0)


@dataclass
class Outcome:
    """What became of the acknowledged events, on both sides."""

    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return not (self.lost or self.duplicated or self.reordered)


class World:
    """One job in a folder of its own, with writers that never rest."""

    def __init__(
        self, folder: Path, *, switch: Switch = Switch.ROUTE, urls: tuple[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.switch = switch
        target = "history-2.db" if switch is Switch.ROUTE else "history.db?tables=v2_"
        files = (f"sqlite:///{folder}/history.db", f"sqlite:///{folder}/{target}")
        self.urls = urls or files
        config = CONFIG.format(source=self.urls[0], target=self.urls[1])
        project_in_files(folder, registry=REGISTRY, config=config)
        event.made = 0  # type: ignore[attr-defined]
        fill(
            self.urls[0],
            [event(f"cart-{n % 5}", "Placed", {"mail": "a", "n": n}) for n in range(60)],
        )
        self.project = Project.open(folder / "eventmig.toml")
        self.project.registry  # noqa: B018 - imported once, before anything forks
        self.writers: list[int] = []  # ids of processes
        self._written = 0
        self.kills = self.resumes = 0
        self.longest_append_s = 0.0

    # processes ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self, count: int = 2, *, pause: float = 0.005) -> Iterator[None]:
        """Writers, for the length of a block; the job must be there."""
        for _ in range(count):
            self._begin_to_write(pause)
        try:
            yield
        finally:
            (self.folder / "stop").touch()
            codes = [os.waitstatus_to_exitcode(os.waitpid(w, 0)[1]) for w in self.writers]
            assert set(codes) <= {0}, codes
            longest = (path.read_text() for path in self.folder.glob("w*.longest"))
            self.longest_append_s = max(map(float, longest))

    def _begin_to_write(self, pause: float) -> None:
        name = f"w{self._written}"
        self._written += 1
        self.writers.append(started(write, self.folder, name, self.urls, self.switch, pause))

    def kill_a_writer(self, *, pause: float = 0.005) -> None:
        """Kill the one that writes for the longest; another takes its place."""
        writer = self.writers.pop(0)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        self.kills += 1
        self._begin_to_write(pause)

    def forked(self, work: Callable[[], object], kill_at: str = "", after_s: float = 0) -> int:
        """Run in a process of its own; its exit code (-9: it was killed, 1: an error).

        `kill_at` is a failpoint; `after_s` a time after which it is killed wherever it is.
        """
        return self.awaited(self.begun(work, kill_at), after_s)

    def begun(self, work: Callable[[], object], kill_at: str = "") -> int:
        """The id of a process that works."""
        child = fork()
        if child == 0:
            code = 0
            try:
                if kill_at:
                    failpoints.handler = lambda name: (
                        os.kill(os.getpid(), signal.SIGKILL) if name == kill_at else None
                    )
                work()
            except EventmigError as error:
                code = 1
                if not isinstance(error, JobError):
                    print(repr(error), file=sys.stderr)
            except BaseException as error:  # noqa: BLE001 - a fork ends here, whatever it was
                code = 7
                print(repr(error), file=sys.stderr)
            os._exit(code)
        return child

    def awaited(self, child: int, after_s: float = 0) -> int:
        """Wait for a process that was `begun`, or kill it; its exit code as `forked` has it."""
        if after_s:
            time.sleep(after_s)
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 1, -9), code
        self.kills += code == -9
        self.resumes += code != -9 and self.kills > 0
        return code

    def upcast(self) -> None:
        commands.upcast(self.project)

    def cutover(self, source: str | None = None, target: str | None = None) -> None:
        commands.cutover(self.project, switch=self.switch, source=source, target=target)

    def reverse(self, source: str | None = None, target: str | None = None) -> None:
        commands.reverse(self.project, source=source, target=target)

    def keep_up(self) -> None:
        commands.keep_up_once(self.project)

    def state(self) -> State:
        return commands.status(self.project).job.state

    # what became of it ----------------------------------------------------------------------

    def outcome(self) -> Outcome:
        """Compare both sides with the writers' own logs; nobody may write any more."""
        acknowledged: dict[str, list[str]] = collections.defaultdict(list)
        found = Outcome()
        for log in self.folder.glob("w*.log"):
            *lines, _ = log.read_text().split("\n")  # one that was killed may leave half a line
            for line in lines:
                id_, stream = line.split("\t")
                acknowledged[stream].append(id_)
                found.acknowledged += 1
        for url in self.urls:
            held: dict[str, list[str]] = collections.defaultdict(list)
            for one in _events(url):
                held[one.stream].append(one.id)
            every = collections.Counter(id_ for ids in held.values() for id_ in ids)
            found.duplicated += [id_ for id_, count in every.items() if count > 1]
            for stream, ids in acknowledged.items():
                found.lost += [id_ for id_ in ids if id_ not in every]
                for writer in {id_.split("-")[0] for id_ in ids}:
                    wrote = [id_ for id_ in ids if id_.startswith(f"{writer}-")]
                    if [id_ for id_ in held[stream] if id_ in set(wrote)] != wrote:
                        found.reordered.append(f"{stream} of {writer} in {url}")
        return found

    def live(self) -> Side:
        store = open_store(self.urls[1])
        try:
            return look_up(store).side
        finally:
            store.close()


def _events(url: str) -> list[Event]:
    store = open_store(url)
    try:
        return [e for batch in store.read_all() for e in batch]
    finally:
        store.close()
