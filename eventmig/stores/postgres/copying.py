"""Event rows as the bytes of a binary COPY: the hot path of writing. Pure.

The format is PostgreSQL's (docs, COPY, "Binary Format"): per row the number of fields, per
field its length and its bytes, integers big-endian, -1 for NULL; jsonb is its version (1)
and the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final

HEADER: Final = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"
TRAILER: Final = b"\xff\xff"

_FIELDS: Final = 12
_NULL: Final = b"\xff\xff\xff\xff"

# global_position, stream_id, stream_position, schema_version, recorded_at; then the three
# of the origin, whose NULLs are lengths of -1 with nothing behind; then the id's length.
_HEAD: Final = ">h iq iq iq ii iq "
_NO_ORIGIN: Final = Struct(_HEAD + "i i i i")
_ORIGIN: Final = Struct(_HEAD + "i iq ii i")
_ORIGIN_ELSEWHERE: Final = Struct(_HEAD + "iq iq ii i")
_SEVERAL: Final = Struct(_HEAD + "i iq i i")
_SEVERAL_ELSEWHERE: Final = Struct(_HEAD + "iq iq i i")
_LENGTH: Final = Struct(">i")
_JSONB: Final = Struct(">ib")


def event_rows(
    global_positions: Iterable[int],
    stream_ids: Iterable[int],
    stream_positions: Iterable[int],
    schema_versions: Iterable[int],
    recorded_at: Iterable[int],
    origins: Iterable[tuple[int | None, int | None, int | None]],
    ids: Sequence[bytes],
    types: Sequence[str],
    data: Iterable[bytes],
    metadata: Iterable[bytes | None],
    *,
    jsonb: bool,
) -> bytes:
    """The COPY of these events, column by column; `origins` are (stream, position, ordinal).

    Raises `struct.error` for an integer that its column cannot hold.
    """
    out: list[bytes] = [HEADER]
    add, append = out.extend, out.append
    length, version_1 = _LENGTH.pack, _JSONB.pack
    type_fields = {name: length(len(name.encode())) + name.encode() for name in set(types)}
    for gp, key, sp, version, at, (o_key, o_sp, o_n), eid, type_, content, meta in zip(
        global_positions,
        stream_ids,
        stream_positions,
        schema_versions,
        recorded_at,
        origins,
        ids,
        types,
        data,
        metadata,
        strict=True,
    ):
        size = len(eid)
        if o_sp is None:
            head = _NO_ORIGIN.pack(
                _FIELDS, 8, gp, 8, key, 8, sp, 4, version, 8, at, -1, -1, -1, size
            )
        elif o_n is None:
            if o_key is None:
                head = _SEVERAL.pack(
                    _FIELDS, 8, gp, 8, key, 8, sp, 4, version, 8, at, -1, 8, o_sp, -1, size
                )
            else:
                head = _SEVERAL_ELSEWHERE.pack(
                    _FIELDS, 8, gp, 8, key, 8, sp, 4, version, 8, at, 8, o_key, 8, o_sp, -1, size
                )
        elif o_key is None:
            head = _ORIGIN.pack(
                _FIELDS, 8, gp, 8, key, 8, sp, 4, version, 8, at, -1, 8, o_sp, 4, o_n, size
            )
        else:
            head = _ORIGIN_ELSEWHERE.pack(
                _FIELDS, 8, gp, 8, key, 8, sp, 4, version, 8, at, 8, o_key, 8, o_sp, 4, o_n, size
            )
        size = len(content)
        add((head, eid, type_fields[type_], version_1(size + 1, 1) if jsonb else length(size)))
        append(content)
        add((_NULL,) if meta is None else (length(len(meta)), meta))
    out.append(TRAILER)
    return b"".join(out)
