"""The one look that tables have."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table


def table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table with these columns; `numbers` are those aligned to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return made
