"""The story: `python -m examples.live_shop [SECONDS]`, where each act takes so many seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eventmig.events import NewEvent
from eventmig.stores.base import EventAppender
from eventmig.stores.open import open_store

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ORDERS = 500


def main(seconds: float) -> int:
    """Play it; returns 0 where nothing was lost, doubled or out of order."""
    with tempfile.TemporaryDirectory(prefix="live-shop-") as name:
        folder = Path(name)
        shutil.copy(HERE / "eventmig.toml", folder)
        old, new = (f"sqlite:///{folder}/history{end}.db" for end in ("", "-2"))
        _history(old)
        _eventmig(folder, "release", "2")
        _eventmig(folder, "upcast")
        with _tills(folder, old, new) as tills, _follower(folder):
            for act in ("cutover", "reverse", "cutover"):
                time.sleep(seconds)
                _eventmig(folder, act)
            time.sleep(seconds)
            (folder / "closing-time").touch()
            longest = max(float(till.communicate()[0]) for till in tills)
            time.sleep(1)  # the follower takes the last events back
            _eventmig(folder, "complete")
        _eventmig(folder, "history")
        return _compare(folder, (old, new), longest)


def _history(url: str) -> None:
    store = open_store(url, mode="create")
    assert isinstance(store, EventAppender)
    for n in range(ORDERS):
        data = f'{{"mail":"{n}@example.org","cents":{n}}}'.encode()
        store.append(f"order-{n}", [NewEvent("OrderPlaced", data)], expected=None)
    store.close()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _eventmig(folder: Path, *arguments: str) -> None:
    print(f"$ eventmig {' '.join(arguments)}", flush=True)
    subprocess.run(
        [sys.executable, "-m", "eventmig", "--quiet", *arguments],
        cwd=folder,
        env=_environment(),
        check=True,
    )


@contextmanager
def _tills(folder: Path, old: str, new: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Two tills of each code, as processes."""
    tills = [
        subprocess.Popen(
            [sys.executable, "-m", "examples.live_shop.till", code, f"{code}{n}", old, new, "0.01"],
            cwd=folder,
            env=_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for code in ("old", "new")
        for n in (1, 2)
    ]
    try:
        yield tills
    finally:
        for till in tills:
            till.kill()
            till.wait()


@contextmanager
def _follower(folder: Path) -> Iterator[None]:
    """`eventmig upcast --follow`, as a supervisor would run it."""
    follower = subprocess.Popen(
        [sys.executable, "-m", "eventmig", "--quiet", "upcast", "--follow"],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
        follower.wait(timeout=30)  # it ends when the job is completed
    finally:
        follower.kill()
        follower.wait()


def _compare(folder: Path, urls: tuple[str, str], longest: float) -> int:
    acknowledged: dict[str, list[str]] = defaultdict(list)
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text().splitlines():
            id_, stream = line.split("\t")
            acknowledged[stream].append(id_)
    sold = sum(map(len, acknowledged.values()))
    wrong = 0
    for side, url in zip(("old", "new"), urls, strict=True):
        store = open_store(url)
        held: dict[str, list[str]] = defaultdict(list)
        for batch in store.read_all():
            for event in batch:
                held[event.stream].append(event.id)
        store.close()
        counts = Counter(id_ for ids in held.values() for id_ in ids)
        lost = sum(id_ not in counts for ids in acknowledged.values() for id_ in ids)
        twice = sum(count > 1 for count in counts.values())
        astray = sum(
            [i for i in held[stream] if i in set(ids)] != ids
            for stream, ids in acknowledged.items()
        )
        wrong += lost + twice + astray
        print(
            f"{side} side: {sum(counts.values()):,} events; of {sold:,} acknowledged {lost} lost, "
            f"{twice} doubled, {astray} streams out of order"
        )
    print(f"the longest request of all tills took {longest:.3f} s")
    return 1 if wrong or not sold else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0))
