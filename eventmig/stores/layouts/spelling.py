"""How PostgreSQL's jsonb spells a JSON text: asked of the database itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy import Connection, text


def respelled(connection: Connection, texts: Sequence[bytes | None]) -> list[bytes | None]:
    """JSON texts as PostgreSQL's jsonb writes them; unchanged where that is another value.

    They are sent as lines of one text: of an array the driver looks at each character.
    """
    statement = text(
        "SELECT CAST(CAST(t AS jsonb) AS text) FROM unnest(string_to_array(:lines, chr(10)))"
        " WITH ORDINALITY AS u (t, n) ORDER BY n"
    )
    given = [one for one in texts if one is not None]
    lines = b"\n".join([one.replace(b"\n", b" ") for one in given])  # between tokens, that is
    found = iter(connection.execute(statement, {"lines": lines.decode()}).scalars().all())
    return [None if old is None else _if_same(old, next(found)) for old in texts]


def _if_same(old: bytes, new: str) -> bytes:
    spelled = new.encode()
    return spelled if _members_of(old) == _members_of(spelled) else old


def _members_of(text: bytes) -> object:
    """The value of a JSON text, members of one name told apart."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal, object_pairs_hook=_sorted_pairs)


def _sorted_pairs(pairs: list[tuple[str, object]]) -> list[tuple[str, object]]:
    return sorted(pairs, key=lambda pair: pair[0])
