"""The fence of a KurrentDB store: a stream that says so, and a mark at the end of every stream.

Whether applications are shut out stands in the last event of the stream `eventmig-fence-…`;
who appends through eventmig asks it first, and applications may subscribe to it. All
others meet the mark: closing appends an event `eventmig.StreamMoved` to each stream, so
that whoever decided on what he had read before is refused by his expected revision, reads
again, and finds that the stream has moved. The marks stay; eventmig's reader leaves them
out. A writer that expects nothing (`ANY`), or begins a stream, is not refused: the
crossing finds his event, and falls back.

With `fence=acl` in the URL there is no mark: closing takes the right to write each stream
from everybody but `$admins`, whatever they expect; opening gives it back.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from contextlib import closing
from typing import Final

from eventmig.errors import ConflictError, CrossingError, FencedError, JobLostError, Where
from eventmig.stores.crossing import Fence
from eventmig.stores.kurrent.append import Appender
from eventmig.stores.kurrent.log import Log
from eventmig.stores.kurrent.rules import MOVED
from eventmig.stores.kurrent.under_way import Item
from eventmig.stores.kurrent.url import Location
from eventmig.stores.kurrent.wire import proposed

Metadata = Mapping[str, object]

FENCE: Final = "FenceSet"
_BEFORE: Final = "eventmig_acl"
"""The member of a stream's metadata that keeps its `$acl` while the stream is shut."""
_JSON: Final = "application/json"


def is_shut(metadata: Metadata) -> bool:
    """Whether a stream with this metadata is shut by its access list."""
    return _BEFORE in metadata


def shut(metadata: Metadata) -> dict[str, object]:
    """The same, but that only `$admins` may write."""
    acl = metadata.get("$acl")
    kept = acl if isinstance(acl, dict) else {}
    return {**metadata, _BEFORE: acl, "$acl": {**kept, "$w": "$admins"}}


def opened(metadata: Metadata) -> dict[str, object]:
    """The same as it was before it was shut."""
    others = {k: v for k, v in metadata.items() if k not in (_BEFORE, "$acl")}
    acl = metadata.get(_BEFORE) if is_shut(metadata) else metadata.get("$acl")
    return others if acl is None else {**others, "$acl": acl}


class FenceStream:
    """The fence of one location."""

    def __init__(self, location: Location, log: Log, appender: Appender) -> None:
        self._location = location
        self._log = log
        self._appender = appender

    def read(self) -> Fence | None:
        """The fence as it is now; None where there never was one."""
        return self._last()[0]

    def check_open(self) -> None:
        """Raise `FencedError` while applications are shut out."""
        fence = self.read()
        if fence is not None and fence.closed:
            raise FencedError(
                "applications may not append here now",
                where=Where(store=self._location.url),
                remedy="look up which side is live (eventmig.live), and append there",
            )

    def check_holder(self, *, job_id: str, epoch: int) -> None:
        """`Fencing.check_fence`."""
        fence = self.read()
        if fence is None or not fence.closed or (fence.job_id, fence.epoch) != (job_id, epoch):
            raise self._lost()

    def set(self, *, closed: bool, job_id: str, epoch: int) -> None:
        """Write the fence, if this holder may."""
        while True:
            before, revision = self._last()
            self._check_before(before, job_id=job_id, epoch=epoch)
            fence = Fence(closed, job_id, epoch, time.time_ns() // 1_000)
            try:
                self._append(self._location.fence_stream, revision + 1, FENCE, fence._asdict())
                return
            except ConflictError:
                continue  # somebody set it meanwhile: look again

    def mark(self, heads: Mapping[str, int], *, job_id: str) -> bool:
        """Append the mark behind these last revisions; False where a writer was faster."""
        content = {"job_id": job_id, "fence": self._location.fence_stream}
        items = [
            self._item(stream, last + 1, MOVED, content) for stream, last in sorted(heads.items())
        ]
        try:
            self._appender.append(items)
        except ConflictError:
            return False
        return True

    # --- below

    def _last(self) -> tuple[Fence | None, int]:
        name = self._location.fence_stream
        with closing(self._log.of_stream_backwards(name)) as stored_events:
            for stored in stored_events:
                return Fence(**json.loads(stored.data)), stored.stream_revision
        return None, -1

    def _check_before(self, before: Fence | None, *, job_id: str, epoch: int) -> None:
        if before is None:
            return
        if before.job_id == job_id:
            if before.epoch > epoch:
                raise self._lost()
        elif before.closed:
            raise CrossingError(
                f"this side is closed by another job ({before.job_id})",
                where=Where(store=self._location.url),
                remedy="end that job first: `eventmig complete` or `eventmig reverse`",
            )

    def _append(self, stream: str, revision: int, type_: str, content: object) -> None:
        self._appender.append([self._item(stream, revision, type_, content)])

    def _item(self, stream: str, revision: int, type_: str, content: object) -> Item:
        data, id_ = json.dumps(content).encode(), str(uuid.uuid4())
        return Item(stream, revision, id_, proposed(id_, type_, _JSON, data, b""), len(data))

    def _lost(self) -> JobLostError:
        return JobLostError(
            "another process took the job over and set the fence",
            where=Where(store=self._location.url),
            remedy="let that one finish (`eventmig status` shows it)",
        )
