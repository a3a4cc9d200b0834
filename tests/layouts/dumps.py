"""A dump of pg_dump, run over a connection: statements, and the rows of COPY."""

from __future__ import annotations

from pathlib import Path

import psycopg


def load(url: str, dump: Path) -> None:
    """Run a dump on the database of this URL."""
    statement: list[str] = []
    rows: list[str] | None = None
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for line in dump.read_text("utf-8").splitlines(keepends=True):
            if rows is not None:
                if line == "\\.\n":
                    with cursor.copy("".join(statement)) as copy:
                        copy.write("".join(rows))
                    statement, rows = [], None
                else:
                    rows.append(line)
            elif line.strip() and not line.startswith("--"):
                statement.append(line)
                if line.startswith("COPY ") and line.endswith("FROM stdin;\n"):
                    rows = []
                elif line.rstrip().endswith(";") and "".join(statement).count("$$") % 2 == 0:
                    cursor.execute("".join(statement))  # type: ignore[arg-type]
                    statement = []
        cursor.execute("RESET search_path")
