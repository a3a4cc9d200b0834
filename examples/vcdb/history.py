"""The chains file: what each incident was in every VERIS version, and the events it becomes.

One JSON object a line, gzipped or not: `{"incident", "created", "versions": [{"schema_version",
"data"}, …]}`. The first version of each chain is the stored event; the last is what the
upcast event must be. Reads only; knows nothing of stores.
"""

from __future__ import annotations

import gzip
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from eventmig import codec
from eventmig.codec import Value
from eventmig.errors import CodecError, ImportLineError, Where
from examples.vcdb.idioms import INCIDENT
from examples.vcdb.schemas import VERSIONS

RELEASE = "1.3.7"
_IDS = uuid.UUID("0a3d0a5e-6f2b-5d0f-9a86-6f3f1a9d2c11")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One incident through its migrations. `line` is 1-based.

    `records` are its data by VERIS version, spelt `1.3.N`, oldest first; the last of them
    is that of the release.
    """

    line: int
    incident: str
    created: str
    records: dict[str, Value]

    @property
    def stream(self) -> str:
        """The stream of the incident."""
        return f"incident-{self.incident}"

    @property
    def first(self) -> str:
        """The VERIS version the chain starts with."""
        return next(iter(self.records))


def read_chains(file: Path) -> Iterator[Chain]:
    """The chains of a file, in its order; raises `ImportLineError` naming the line."""
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            try:
                yield _chain(number, codec.decode(line))
            except (ImportLineError, CodecError) as error:
                where = Where(file=str(file), line=number).within(error.where)
                raise ImportLineError(error.what, where=where, remedy=error.remedy) from error


def as_import_lines(chains: Iterable[Chain]) -> Iterator[bytes]:
    """The first record of each chain as an event, oldest first, in eventmig's import form."""
    positions: dict[str, int] = {}
    for chain in sorted(chains, key=lambda chain: chain.created):
        position = positions[chain.stream] = positions.get(chain.stream, 0) + 1
        yield codec.encode_checked(
            {
                "stream": chain.stream,
                "stream_position": position,
                "id": str(uuid.uuid5(_IDS, f"{chain.stream}@{position}")),
                "type": INCIDENT,
                "schema_version": VERSIONS[chain.first],
                "data": chain.records[chain.first],
                "metadata": {"source": "VERIS Community Database"},
                "recorded_at": chain.created,
            }
        )


def veris_version(text: object) -> str:
    """`1.3`, `1.3.0` and `1_3_2` as `1.3.0`, `1.3.0` and `1.3.2`; `ImportLineError` for others."""
    parts = str(text).strip().replace("_", ".").split(".")
    version = ".".join([*parts, "0", "0"][: max(3, len(parts))])
    if version not in VERSIONS:
        raise ImportLineError(
            f"{text!r} is no VERIS version this example knows",
            remedy=f"known are {', '.join(VERSIONS)}",
        )
    return version


def _lines(file: Path) -> Iterator[bytes]:
    number = 0
    try:
        with file.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(file) if packed else file.open("rb") as lines:
            for line in lines:
                number += 1
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ImportLineError(
            f"the file ends or breaks in its compression: {error}",
            where=Where(file=str(file), line=number + 1),
            remedy="fetch the file again",
        ) from error
    except OSError as error:
        raise ImportLineError(
            f"the file cannot be read: {error.strerror or error}",
            where=Where(file=str(file)),
            remedy="name a file of chains (JSON Lines, gzipped or not)",
        ) from error


def _chain(line: int, value: Value) -> Chain:
    record = _object(value, "the line")
    incident = _text(record, "incident")
    versions = record.get("versions")
    if not isinstance(versions, list) or not versions:
        raise _no("it has no list `versions`")
    records: dict[str, Value] = {}
    for index, entry in enumerate(versions):
        stated = _object(entry, f"versions[{index}]")
        data = _object(stated.get("data"), f"versions[{index}].data")
        version = veris_version(stated.get("schema_version", data.get("schema_version")))
        if records and VERSIONS[version] <= VERSIONS[next(reversed(records))]:
            raise _no(f"versions[{index}] is {version}, which does not come after the one before")
        records[version] = data
    if RELEASE not in records:
        raise _no(
            f"the chain of {incident} ends at {next(reversed(records))}, and this example "
            f"compares with {RELEASE}"
        )
    return Chain(line=line, incident=incident, created=_text(record, "created"), records=records)


def _object(value: object, name: str) -> dict[str, Value]:
    if not isinstance(value, dict):
        raise _no(f"{name} is of type {codec.kind(value)}, not an object")
    return value


def _text(record: dict[str, Value], name: str) -> str:
    found = record.get(name)
    if not isinstance(found, str) or not found:
        raise _no(f"its `{name}` is no text")
    return found


def _no(what: str) -> ImportLineError:
    return ImportLineError(
        what,
        remedy='write {"incident", "created", "versions": [{"schema_version", "data"}, …]}',
    )
