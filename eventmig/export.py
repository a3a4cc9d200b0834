"""Histories out: a store to JSON Lines, written whole or not at all.

One event per line, in global order:

    {"stream":…, "stream_position":…, "id":…, "type":…, "schema_version":…,
     "data":…, "metadata":…, "recorded_at":"2024-01-01T00:00:00.000000Z",
     "origins":[[stream, position, ordinal], …]}

`data` and `metadata` are the stored bytes as they stand. Bytes that would not
come back so (they hold a line break, have spaces around them, are no JSON text,
or are a bare `null`) are written as `data_base64` or `metadata_base64` instead.
`metadata` and `origins` are left out where there are none. A time beyond the
years 1 to 9999 is written as a number of microseconds. Global positions are not
carried: an import assigns them in the order of the lines.
"""

from __future__ import annotations

import base64
import gzip
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from eventmig.errors import StoreError, Where
from eventmig.events import Event
from eventmig.stores.base import EventReader


class _Exported(msgspec.Struct, frozen=True, kw_only=True):
    stream: str
    stream_position: int
    id: str
    type: str
    schema_version: int
    data: Raw | UnsetType = UNSET
    data_base64: str | UnsetType = UNSET
    metadata: Raw | UnsetType = UNSET
    metadata_base64: str | UnsetType = UNSET
    recorded_at: str | int
    origins: Sequence[tuple[str, int, int]] | UnsetType = UNSET


_encode: Final = msgspec.json.Encoder().encode
_as_raw: Final = msgspec.json.Decoder(Raw).decode


def export_jsonl(
    store: EventReader, path: str, *, progress: Callable[[int], None] | None = None
) -> int:
    """Write all events in global order, one per line; returns how many.

    A `.gz` in the name compresses. The file appears whole or not at all; one
    that is there is replaced. Raises `StoreError` where it cannot be written.
    Reads the store only.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreError(
            f"{path} is not a file",
            where=Where(file=path),
            remedy="name a file, or - for standard output",
        )
    target = Path(path).resolve()  # a link goes on leading there
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    count = 0
    try:
        with open(beside, "wb") as plain:
            with _compressed(plain, target.name) as file:
                for batch in store.read_all():
                    file.write(b"".join(map(export_line, batch)))
                    count += len(batch)
                    if progress is not None:
                        progress(count)
            plain.flush()
            os.fsync(plain.fileno())
        os.replace(beside, target)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}",
            where=Where(file=path),
            remedy="check the folder, its permissions and the room on the disk",
        ) from error
    finally:
        beside.unlink(missing_ok=True)
    return count


@contextmanager
def _compressed(plain: BinaryIO, name: str) -> Iterator[BinaryIO]:
    if name.endswith(".gz"):
        # No time and no name inside: the same events give the same file.
        with gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0) as file:
            yield cast(BinaryIO, file)
    else:
        yield plain


def export_line(event: Event) -> bytes:
    """One event as a line, its end included."""
    data, metadata = event.data, event.metadata
    plain = _carried(data)
    plain_meta = metadata is None or _carried(metadata)
    return (
        _encode(
            _Exported(
                stream=event.stream,
                stream_position=event.stream_position,
                id=event.id,
                type=event.type,
                schema_version=event.schema_version,
                data=Raw(data) if plain else UNSET,
                data_base64=UNSET if plain else base64.b64encode(data).decode(),
                metadata=UNSET if metadata is None or not plain_meta else Raw(metadata),
                metadata_base64=UNSET
                if metadata is None or plain_meta
                else base64.b64encode(metadata).decode(),
                recorded_at=_iso(event),
                origins=event.origins or UNSET,
            )
        )
        + b"\n"
    )


def _carried(stored: bytes) -> bool:
    """Whether a line can hold these bytes so that they come back the same."""
    if b"\n" in stored or b"\r" in stored or stored == b"null":
        return False
    try:
        stored.decode()
        return bytes(_as_raw(stored)) == stored
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _iso(event: Event) -> str | int:
    try:
        moment = event.recorded_time
    except OverflowError:  # beyond the years 1 to 9999
        return event.recorded_at
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
