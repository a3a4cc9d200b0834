"""Inspect: what an existing database holds, and how eventmig would read and write it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sqlalchemy import make_url

from eventmig.errors import (
    ConfigError,
    DataError,
    EventmigError,
    NotAStoreError,
    StoreDamagedError,
    Where,
)
from eventmig.events import Event
from eventmig.project import Project, opened, public
from eventmig.stores.base import EventReader
from eventmig.stores.held_up import HeldUp, Waiting
from eventmig.stores.kurrent import url as kurrent_url
from eventmig.stores.layouts import (
    OPTION,
    LayoutStore,
    Match,
    Place,
    address_of,
    database_of,
    matches,
    open_layout,
    propose,
    seen_in,
    toml,
)
from eventmig.stores.owned import LeftBehind

EVENTS_SHOWN = 10
EVENTS_TRIED = 1_000
FINDINGS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a look at a database found.

    `layout` is None for a store that eventmig made itself. `description` is TOML for the
    configuration where no preset fits. `source` is the URL that reads the store. `refused`
    says what a job would not read; the first `EVENTS_TRIED` events were tried. `order` names
    the columns that order events over streams, where there are two; `held_up` is what keeps
    events that are stored from being read, if anything does. `left_behind` is
    what a job does not copy; `snapshot_form` the library whose snapshots a rebuild can write.
    """

    store: str
    source: str
    layout: str | None
    system: str
    table: str
    description: str | None
    events: int
    streams: int
    types: tuple[tuple[str, int, int], ...]
    shown: tuple[Event, ...]
    refused: tuple[str, ...]
    writable: bool
    why_not: str
    side_by_side: str
    proof: str
    others: tuple[str, ...] = field(default=())
    left_behind: tuple[LeftBehind, ...] = field(default=())
    snapshot_form: str = ""
    order: tuple[str, ...] = field(default=())
    held_up: HeldUp | None = None


def inspect(project: Project, url: str, *, layout: str | None = None) -> Inspection:
    """Look at a database, recognise its layout or propose one, and try to read it. Reads only.

    `layout` names a preset or a description of the configuration to use instead. Raises
    `NotAStoreError` where no table looks like one of events.
    """
    url = project.config.url(url)
    if layout is not None:
        parsed = make_url(url).update_query_dict({OPTION: layout})
        url = project.config.url(parsed.render_as_string(hide_password=False))
    if OPTION in make_url(url).query:
        with open_layout(make_url(url), mode="read") as store:
            return _described(store, public(url), Match(layout=store.layout, schema=None))
    native = _native(url)
    return native if native is not None else _recognised(url)


def _native(url: str) -> Inspection | None:
    """What a store of eventmig's own tables holds; None where these are others."""
    try:
        with opened(url) as store:
            return Inspection(
                store=public(url),
                source=public(url),
                layout=None,
                system="eventmig",
                table="",
                description=None,
                **_content(store),
                refused=tuple(found.what for found in islice(store.preflight(), FINDINGS)),
                writable=True,
                why_not="",
                side_by_side="new streams in the same server (?prefix=…)"
                if kurrent_url.is_kurrent(url)
                else "a new file, other tables (?tables=…) or new streams (?release=…)",
                proof="",
            )
    except NotAStoreError:
        return None
    except ConfigError:  # not a kind of database with a store of eventmig's own
        if make_url(url).get_backend_name() != "postgresql":
            raise
        return None


def _recognised(url: str) -> Inspection:
    address = address_of(make_url(url))
    database = database_of(address)
    try:
        database.check()
        with database.reading() as connection:
            seen = seen_in(connection, address.schema)
            found = matches(seen, address.dialect)
            if not found:
                proposed = propose(connection, seen, address.dialect)
                found = [] if proposed is None else [proposed]
    finally:
        database.close()
    if not found:
        raise NotAStoreError(
            "no table here looks like one of events "
            f"(there are: {', '.join(sorted(t.name for t in seen)) or 'none'})",
            where=Where(store=public(url)),
            remedy="describe the table in [layouts.NAME] of the configuration, and inspect with "
            "--layout NAME; the reference of layouts lists every key. A store that eventmig made "
            "needs its ?schema=… or ?tables=… in the URL",
        )
    readable = [match for match in found if _reads(url, match)]
    match, *rest = readable or found
    with _opened(url, match) as store:
        others = [f"{m.layout.name} on {m.layout.table}" for m in rest if readable]
        return _described(store, public(url), match, others=tuple(others))


def _opened(url: str, match: Match) -> LayoutStore:
    parsed = make_url(url)
    if match.schema is not None:
        parsed = parsed.update_query_dict({"schema": match.schema})
    return LayoutStore(Place(address=address_of(parsed), layout=match.layout), mode="read")


def _reads(url: str, match: Match) -> bool:
    """Whether a layout can read the first events of its table."""
    with _opened(url, match) as store:
        try:
            next(store.read_all(batch_size=EVENTS_SHOWN), None)
        except EventmigError:
            return False
    return True


def _described(
    store: LayoutStore, url: str, match: Match, *, others: tuple[str, ...] = ()
) -> Inspection:
    layout = store.layout
    refused = [str(found) for found in store.faults(events=EVENTS_TRIED)]
    content: dict[str, Any] = {"events": store.count(), "streams": 0, "types": (), "shown": ()}
    try:
        content = _content(store)
    except (DataError, StoreDamagedError) as error:
        refused.insert(0, str(error))
    return Inspection(
        store=url,
        source=_source(url, match),
        layout=layout.name,
        system=layout.system,
        table=layout.table,
        description=toml(layout) if match.proposed else None,
        **content,
        refused=tuple(dict.fromkeys(refused)),
        writable=not layout.read_only,
        why_not=layout.read_only,
        side_by_side=layout.side_by_side,
        proof=layout.proof,
        others=others,
        left_behind=tuple(store.left_behind()),
        snapshot_form=store.snapshot_form,
        order=(layout.transaction.column, layout.position) if layout.transaction else (),
    )


def _content(store: EventReader) -> dict[str, Any]:
    shown: list[Event] = next(store.read_all(batch_size=EVENTS_SHOWN), [])
    return {
        "held_up": store.held_up() if isinstance(store, Waiting) else None,
        "events": store.count(),
        "streams": sum(category.streams for category in store.categories()),
        "types": tuple((c.type, c.schema_version, c.count) for c in store.type_counts()),
        "shown": tuple(shown),
    }


def _source(url: str, match: Match) -> str:
    """The URL that reads a match: as it was given, with what is missing in it."""
    parsed = make_url(url)
    options = {OPTION: match.layout.name}
    if match.schema is not None:
        options["schema"] = match.schema
    if match.elsewhere:
        options["table"] = match.layout.table
    return parsed.update_query_dict(options).render_as_string(hide_password=True)
