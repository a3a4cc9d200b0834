"""One SQLite store, several processes and threads: readers, writers, and a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from eventmig.errors import JobLockedError, StoreError
from eventmig.events import NewEvent
from eventmig.stores.base import ANY, all_events
from eventmig.stores.open import open_store

HEAD = """
import os, signal, sys
from eventmig.events import Event, NewEvent
from eventmig.stores.base import ANY
from eventmig.stores.open import open_store
url = sys.argv[1]
def batch(n):
    return [Event(0, f"s{n}", i, f"{n}-{i}", "T", 1, b"{}", None, i) for i in range(1, 501)]
"""


def process(code: str, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(code), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/x.db"
    open_store(url, mode="create").close()
    return url


def test_a_reader_sees_whole_batches_while_another_process_writes(url: str) -> None:
    code = """
        with open_store(url, mode="write") as store:
            for n in range(40):
                with store.begin() as transaction:
                    transaction.append_copied(batch(n))
        """
    with process(code, url) as writer, open_store(url) as store:
        counts = set()
        while writer.poll() is None:
            counts.add(store.count())
            events = list(all_events(store.read_all(batch_size=170)))
            positions = [event.global_position for event in events]
            assert positions == list(range(1, len(events) + 1))
        assert writer.wait() == 0
        assert store.count() == 20_000
    assert all(count % 500 == 0 for count in counts)


def test_two_processes_append_and_none_is_lost(url: str) -> None:
    code = """
        with open_store(url, mode="write") as store:
            for n in range(100):
                store.append("shared", [NewEvent("T", b"{}")], expected=ANY)
        """
    with process(code, url) as one, process(code, url) as two:
        assert (one.wait(), two.wait()) == (0, 0)
    with open_store(url) as store:
        assert [e.stream_position for e in store.read_stream("shared")] == list(range(1, 201))
        assert list(store.preflight()) == []


def test_threads_read_while_one_writes(url: str) -> None:
    failures: list[BaseException] = []
    done = threading.Event()
    with open_store(url, mode="write") as store:

        def read() -> None:
            try:
                while not done.is_set():
                    positions = [e.stream_position for e in store.read_stream("s")]
                    assert positions == list(range(1, len(positions) + 1))
            except BaseException as error:  # noqa: BLE001 - shown by the main thread
                failures.append(error)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for _ in range(100):
            store.append("s", [NewEvent("T", b"{}")], expected=ANY)
        done.set()
        for reader in readers:
            reader.join()
    assert failures == []


@pytest.mark.parametrize("defer", [False, True])
def test_a_kill_in_the_middle_of_a_batch_leaves_nothing_of_it(url: str, defer: bool) -> None:
    code = f"""
        store = open_store(url, mode="write")
        with store.begin() as transaction:
            if {defer}:
                transaction.defer_indexes()
            transaction.append_copied(batch(0))
        with store.begin() as transaction:
            transaction.append_copied(batch(1))
            os.kill(os.getpid(), signal.SIGKILL)
        """
    with process(code, url) as writer:
        assert writer.wait() == -signal.SIGKILL
    with open_store(url, mode="write") as store:
        assert store.count() == 500
        assert list(store.preflight()) == []
        with store.begin() as transaction:
            assert transaction.defer_indexes() == defer
            assert transaction.heads(["s0", "s1"]) == {"s0": 500, "s1": 0}
            transaction.build_indexes()
        store.append("s0", [NewEvent("T", b"{}")], expected=500)


def test_a_lock_ends_with_its_process(url: str) -> None:
    code = """
        store = open_store(url, mode="write")
        with store.lock():
            print("held", flush=True)
            sys.stdin.read()
        """
    with process(code, url) as holder, open_store(url, mode="write") as store:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(JobLockedError, match=r"x\.db\.lock"), store.lock():
            pass
        with open_store(url + "?release=r2", mode="write") as other, other.lock():
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with store.lock():
            pass


def test_a_new_file_that_its_maker_takes_back_is_missed_before_anything_is_written(
    tmp_path: Path,
) -> None:
    place = f"sqlite:///{tmp_path}/new.db"
    maker, other = open_store(place, mode="create"), open_store(place, mode="create")
    maker.discard()
    assert not (tmp_path / "new.db").exists()
    with pytest.raises(StoreError, match="took the new file back"), other.lock():
        pass
    other.discard()  # made nothing, and takes nothing back
    with open_store(place, mode="create") as third, third.lock():
        assert third.count() == 0
