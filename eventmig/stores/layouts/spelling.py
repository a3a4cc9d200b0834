"""How PostgreSQL's jsonb spells a JSON text: asked of the database itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy import Connection, text


def respelled(connection: Connection, texts: Sequence[bytes | None]) -> list[bytes | None]:
    """JSON texts as PostgreSQL's jsonb writes them; unchanged where that is another value."""
    statement = text(
        "SELECT CAST(CAST(t AS jsonb) AS text) FROM unnest(CAST(:texts AS text[]))"
        " WITH ORDINALITY AS u (t, n) ORDER BY n"
    )
    given = [None if one is None else one.decode() for one in texts]
    found = connection.execute(statement, {"texts": given}).scalars()
    return [
        None
        if old is None
        else (
            new.encode()
            if new is not None and _members_of(old) == _members_of(new)
            else old.encode()
        )
        for old, new in zip(given, found, strict=True)
    ]


def _members_of(text: str) -> object:
    """The value of a JSON text, members of one name told apart."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal, object_pairs_hook=_sorted_pairs)


def _sorted_pairs(pairs: list[tuple[str, object]]) -> list[tuple[str, object]]:
    return sorted(pairs, key=lambda pair: pair[0])
