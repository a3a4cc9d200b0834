"""Killed anywhere, a job repeats at most the batch it was at: nothing committed is done again.

Counted by an upcaster that writes down each event it sees, outside of any store. What is
upcast ahead, beside a server or by a second process, is done again, too: it has its own bounds.
"""

from __future__ import annotations

from pathlib import Path

from eventmig.stores.open import open_store
from tests.acceptance.support import driver, event, project_in_files

SEEN = """
import os
from pathlib import Path
from eventmig import Registry, data_upcaster

@data_upcaster("Counted", 1)
def seen(data):
    log = os.open(os.environ["SEEN_IN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, b"%d " % data["n"])
    os.close(log)
    if os.environ["KILLED_AT"] == str(data["n"]):
        os.kill(os.getpid(), 9)
    return data | {"seen": True}

registry = Registry([seen])
"""

# One process that is forked for every run. A run is killed at the n-th failpoint of batches (the
# odd ones are before a transaction, the even ones behind its commit), just before the n-th
# statement that it sends to a SQLite target, or when it upcasts the n-th event.
DRIVER = """
import os, sys, time
from pathlib import Path
from eventmig import commands
from eventmig.migrate import failpoints
from eventmig.project import Project
from eventmig.stores.sqlite import store as sqlite
from tests.forks import forked

its = Project.open()
its.registry
connect = sqlite.connect_writer
source, target, workers, size, *kills = sys.argv[1:]

def run(name, kind, kill_at):
    count = 0
    def point(what):
        nonlocal count
        count += kind == "statement" or what.startswith("batch")
        if count == kill_at:
            end = time.monotonic() + 60
            while int(workers) > 1 and time.monotonic() < end:  # until the other is ahead
                if len(Path(name).read_text().split()) >= 4 * int(size):
                    break
                time.sleep(0.01)
            os.kill(os.getpid(), 9)
    def traced(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(point)
        return connection
    os.environ |= {"SEEN_IN": name, "KILLED_AT": str(kill_at) if kind == "event" else ""}
    if kind == "statement":
        sqlite.connect_writer = traced
    if kind == "failpoint":
        failpoints.handler = point
    commands.upcast(its, source=source, target=target.format(kill), workers=int(workers),
                    batch_size=int(size), verify=False)
    os._exit(0)

for kill in kills:
    kind, _, kill_at = kill.partition("_")
    assert forked(run, f"{kill}.killed", kind, int(kill_at)) == -9, kill
    assert forked(run, f"{kill}.resumed", "", 0) == 0, kill
"""


def filled(folder: Path, source: str, *, events: int, data: int = 0) -> Path:
    """A project and a source of so many events, with so many bytes of data each."""
    made = project_in_files(
        folder / "job", registry=SEEN, config='registry = "steps_here:registry"'
    )
    heads: dict[str, int] = {}
    with open_store(source.format(made), mode="create") as store, store.begin() as tx:
        for n in range(1, events + 1):
            one = event(f"s-{n % 7}", "Counted", {"n": n, "text": "x" * data})
            heads[one.stream] = heads.get(one.stream, store.first_position - 1) + 1
            tx.append_copied([one._replace(stream_position=heads[one.stream])])
    return made


def repeated(
    folder: Path, source: str, target: str, kills: list[str], *, size: int, workers: int = 1
) -> list[int]:
    """For each kill, how many events were upcast before it and again by the run that resumes."""
    names = [source.format(folder), target.format(folder, "{}")]
    done = driver(folder, DRIVER, *names, workers, size, *kills)
    assert done.returncode == 0, done.stderr
    counts = []
    for kill in kills:
        before, after = (
            set(map(int, (folder / f"{kill}.{run}").read_text().split()))
            if (folder / f"{kill}.{run}").exists()
            else set[int]()
            for run in ("killed", "resumed")
        )
        with open_store(target.format(folder, kill)) as store:
            events = set(range(1, store.count() + 1))
        # What was committed when it was killed is what the second run did not have to do.
        committed = events - after
        assert committed == set(range(1, len(committed) + 1))
        assert len(committed) % size == 0, "a batch is there whole, or not at all"
        assert before | after == events
        counts.append(len(before & after))
    return counts


SQLITE = "sqlite:///{}/source.db", "sqlite:///{}/{}.db"


def test_at_most_one_batch_is_done_again(tmp_path: Path) -> None:
    kills = ["failpoint_1", "failpoint_2", "failpoint_9", "failpoint_10"]
    kills += ["event_1", "event_33", "event_60"]
    kills += [f"statement_{n}" for n in range(31, 131, 24)]
    folder = filled(tmp_path, SQLITE[0], events=60)
    counts = repeated(folder, *SQLITE, kills, size=6)
    assert max(counts) == 6
    assert min(counts) == 0  # behind a commit


def test_beside_a_server_one_more_is_under_way(tmp_path: Path, postgres_url: str) -> None:
    """It is upcast while the one before it is written."""
    urls = f"{postgres_url}&schema=old", f"{postgres_url}&schema={{1}}"
    folder = filled(tmp_path, urls[0], events=60)
    kills = ["failpoint_1", "failpoint_2", "failpoint_9", "event_33"]
    assert max(repeated(folder, *urls, kills, size=6)) <= 12


def test_a_second_process_has_a_bound_to_how_far_it_is_ahead(tmp_path: Path) -> None:
    """Six batches of more than a megabyte; of smaller ones as many as fit into one."""
    folder = filled(tmp_path, SQLITE[0], events=60, data=300_000)
    (found,) = repeated(folder, *SQLITE, ["failpoint_4"], size=5, workers=2)
    assert 5 < found <= 30
