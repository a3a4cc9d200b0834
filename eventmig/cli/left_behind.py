"""What a job does not copy of the owner's, as people read it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from eventmig.stores.owned import LeftBehind


def left_behind(found: Sequence[LeftBehind], form: str) -> list[Text]:
    """A line for each; `form` is the library whose snapshots a rebuild can write."""
    anew = (
        "`eventmig rebuild --snapshots` writes new ones"
        if form
        else "the owner's library takes new ones"
    )
    return [Text(f"{one} stay behind" + (f"; {anew}" if one.table else "")) for one in found]
