"""A description to begin with, for tables that no preset fits: from the names of columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, column, func, select
from sqlalchemy import table as sa_table

from eventmig.stores.layouts.columns import Found, Kind
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.parts import Dialect
from eventmig.stores.layouts.presets import described
from eventmig.stores.layouts.recognise import Match, Seen

# Names that such columns have in stores people wrote themselves, the likeliest first.
_STREAM: Final = """
    stream_name stream_id stream aggregate_id aggregate_identifier persistence_id entity_id
    originator_id source_id aggregate_root_id aggregateid streamid
"""
_PLACE: Final = """
    stream_position stream_version aggregate_version sequence_number playhead
    originator_version aggregate_sequence sequence_nr version revision streamversion
"""
_GLOBAL: Final = """
    global_position global_sequence global_index position sequence seq_id seq ordering
    event_number no id pk rowid
"""
_TYPE: Final = """
    event_type type event_name message_type payload_type topic event name eventtype
"""
_DATA: Final = """
    data event_data payload message_data event_payload body state event content json
"""
_METADATA: Final = "metadata meta_data meta event_metadata headers custom_headers"
_ID: Final = "event_id message_id event_identifier uuid eventid id"
_TIME: Final = """
    recorded_at created_at created timestamp time_stamp time occurred_at recorded_on
    stored_at
"""
_TRANSACTION: Final = "transaction_id transaction xact_id txid xid"
_VERSION: Final = """
    schema_version event_version payload_revision data_version type_version event_revision
"""


def propose(connection: Connection, seen: Iterable[Seen], dialect: Dialect) -> Match | None:
    """A description of the table that looks most like one of events, by its columns' names.

    None where no table has a stream, a position in it, a type and data.
    """
    best: tuple[int, Match] | None = None
    for table in seen:
        found = _proposal(connection, table, dialect)
        if found is not None and (best is None or len(found.columns()) > best[0]):
            match = Match(layout=found, schema=table.schema, proposed=True)
            best = (len(found.columns()), match)
    return None if best is None else best[1]


def _proposal(connection: Connection, table: Seen, dialect: Dialect) -> Layout | None:
    left = dict(table.columns)
    if dialect == "sqlite":
        left["rowid"] = Found(Kind.INTEGER, table.columns[next(iter(table.columns))].type)

    def take(names: str, *kinds: Kind) -> str | None:
        spelled = {name.lower(): name for name in left}
        for name in names.split():
            own = spelled.get(name)
            if own is not None and (not kinds or left[own].kind in kinds):
                del left[own]
                return own
        return None

    texts = (Kind.TEXT, Kind.UUID, Kind.OTHER)
    payloads = (Kind.JSON, Kind.JSONB, Kind.BLOB, Kind.TEXT, Kind.OTHER)
    stream = take(_STREAM, *texts, Kind.INTEGER)
    place = take(_PLACE, Kind.INTEGER)
    position = take(_GLOBAL, Kind.INTEGER)
    type_ = take(_TYPE, Kind.TEXT, Kind.OTHER)
    data = take(_DATA, *payloads)
    transaction = take(_TRANSACTION, Kind.XID8)
    if stream is None or place is None or position is None or type_ is None or data is None:
        return None
    metadata, id_ = take(_METADATA, *payloads), take(_ID, *texts)
    time = take(_TIME, Kind.AWARE, Kind.NAIVE, Kind.TEXT, Kind.INTEGER)
    version = take(_VERSION, Kind.INTEGER, Kind.TEXT)
    whole: dict[str, object] = {
        "table": table.name,
        "position": position,
        "tail": "single" if dialect == "sqlite" else "barrier",
        "first": _first(connection, table, position),
        "stream": {
            "columns": [stream],
            "position": place,
            "first": _first(connection, table, place),
        },
        "type": {"column": type_},
        "data": {"column": data},
    }
    if transaction is not None:
        whole |= {"transaction": {"column": transaction}, "tail": "transactions"}
    if metadata is not None:
        whole["metadata"] = {"column": metadata}
    if id_ is not None:
        whole["id"] = {"column": id_}
    if version is not None:
        whole["version"] = {"place": "column", "name": version}
    if time is not None:
        kind = table.columns[time].kind
        encoding = {Kind.INTEGER: "ms", Kind.TEXT: "iso"}.get(kind, "native")
        whole["time"] = {"column": time, "encoding": encoding}
    return described("own", whole, dialect)


def _first(connection: Connection, table: Seen, counted: str) -> int:
    """Whether a column that counts begins at 0 or at 1."""
    source = sa_table(table.name, column(counted), schema=table.schema)
    lowest = connection.execute(select(func.min(source.c[counted]))).scalar()
    return 0 if lowest == 0 else 1


def toml(layout: Layout) -> str:
    """A layout as the table of a configuration file, ready to paste."""
    head = f"[layouts.{layout.name}]"
    lines, tables = [head], []
    for name, value in layout.model_dump(exclude_defaults=True, mode="json").items():
        if name in ("name", "dialect"):
            continue
        if isinstance(value, dict):
            rows = [f"{key} = {_toml(part)}" for key, part in value.items()]
            tables += ["", f"[layouts.{layout.name}.{name}]", *rows]
        else:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _toml(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case list() | tuple():
            return "[" + ", ".join(map(_toml, value)) + "]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
