"""Whatever a value is, COPY carries it."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import create_engine, text

from eventmig.stores.layouts.bulk import copies, copy_rows

TEXTS = ["", "\\", "\\N", "a\tb", "a\nb", "a\r\nb", '"\\n"', "Zoë", "\\.", "\x01"]
BYTES = [b"", b"\x00\xff", b"\\x00", b"\n", *[text.encode() for text in TEXTS[4:]]]


def test_values_come_back_as_they_were_given(postgres_url: str) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    given = {
        "number": list(range(len(TEXTS))),
        "te xt%": TEXTS,
        'by"tes': BYTES,
        "yes": [None, True, False] + [None] * 7,
        "at": [moment] * 9 + [None],
    }
    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(
            text(
                'CREATE TABLE "o""dd" (number bigint, "te xt%" text, "by""tes" bytea, yes bool,'
                " at timestamptz)"
            )
        )
        assert copies(connection, 'o"dd')
        copy_rows(connection, 'o"dd', given)
        found = connection.execute(text('SELECT * FROM "o""dd" ORDER BY number')).all()
    engine.dispose()
    assert [list(row) for row in found] == [list(row) for row in zip(*given.values(), strict=True)]
