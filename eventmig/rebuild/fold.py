"""One table's part of a batch, in memory: many operations on one row become one effect.

What the row must have been before is kept (`needs`), and what becomes of it
(`outcome`):

    operation      on a row not touched yet         on a row touched in this batch
    insert         needs ABSENT, outcome ROW        after a delete: ROW; else an error
    upsert         outcome MERGE (set)              set
    increment      outcome MERGE (add)              add
    patch          needs PRESENT, outcome MERGE     set; after a delete an error
    delete         outcome DELETED                  DELETED (`needs` stays)

An upsert or increment that leaves out a column which a new row must have needs
PRESENT, too. Reads the database through `fetch` alone; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

from eventmig.rebuild.faults import NO_CAUSE, Cause, missing
from eventmig.rebuild.shape import Shape


class Needs(IntEnum):
    """What an effect asks of the row as it was before the batch."""

    NOTHING = 0
    ABSENT = 1
    PRESENT = 2


class Outcome(IntEnum):
    """What becomes of the row: some columns change, the whole row is known, or it is gone."""

    MERGE = 0
    ROW = 1
    DELETED = 2


_MERGE, _ROW, _DELETED = Outcome
_NOTHING, _ABSENT, _PRESENT = Needs


class Effect:
    """What a batch does to one row.

    `values`: the columns set (MERGE) or the whole row without its key, in the
    shape's order (ROW). `adds`: what is added to columns (MERGE only). `cause`: the
    first event that touched the row in this batch, as far as it is kept.
    """

    __slots__ = ("adds", "cause", "needs", "outcome", "values")

    def __init__(
        self,
        needs: Needs,
        outcome: Outcome,
        values: dict[str, Any],
        adds: dict[str, Any],
        cause: Cause,
    ) -> None:
        self.needs = needs
        self.outcome = outcome
        self.values = values
        self.adds = adds
        self.cause = cause


class TableFold:
    """One table's effects of the current batch, by key.

    `sums` are the rows that were only added to, which is the most frequent effect:
    amounts by column; all others are in `effects` (a key is in one of the two).
    `signatures` are the lists of columns that `sums` may hold.
    `known` are rows (None: absent) as the database holds them, from earlier reads;
    `fetch` reads one; `stored` gives a value as it would come back from the database.
    """

    __slots__ = (
        "effects",
        "fetch",
        "key_type",
        "known",
        "names",
        "pick",
        "reads",
        "shape",
        "signatures",
        "stored",
        "sums",
        "width",
    )

    def __init__(
        self,
        shape: Shape,
        fetch: Callable[[object], dict[str, Any] | None],
        stored: Mapping[str, Callable[[Any], Any]],
    ) -> None:
        self.shape = shape
        self.pick = shape.pick
        self.width = len(shape.key)
        self.key_type = shape.key_types[0] if self.width == 1 else tuple
        self.names: dict[tuple[str, ...], Needs] = {}
        self.sums: dict[object, dict[str, Any]] = {}
        self.signatures: set[tuple[str, ...]] = set()
        self.effects: dict[object, Effect] = {}
        self.known: dict[object, dict[str, Any] | None] = {}
        self.fetch = fetch
        self.stored = stored
        self.reads = False

    def __len__(self) -> int:
        return len(self.sums) + len(self.effects)

    def effect(self, key: object, cause: Cause) -> Effect | None:
        """What the batch has done to a row so far, or None; sums become an effect."""
        found = self.effects.get(key)
        if found is None and key in self.sums:
            found = Effect(_NOTHING, _MERGE, {}, self.sums.pop(key), cause)
            self.effects[key] = found
        return found

    def before(self, key: object) -> dict[str, Any] | None:
        """The row as it was before this batch, or None; reads the database once."""
        if key in self.known:
            return self.known[key]
        self.reads = True
        row = self.known[key] = self.fetch(key)
        return row

    def now(self, key: object) -> dict[str, Any] | None:
        """The row as it is after the operations so far, or None."""
        effect = self.effect(key, NO_CAUSE)
        if effect is None:
            return self.before(key)
        if effect.outcome is _DELETED:
            return None
        shape = self.shape
        names = dict(zip(shape.key, shape.key_values(key), strict=True))
        if effect.outcome is _ROW:
            row = names | effect.values
        else:
            before = self.before(key)
            if before is None and effect.needs is _PRESENT:
                raise missing(shape, key, effect.cause)
            row = (names | shape.defaults if before is None else before) | effect.values
            for name, amount in effect.adds.items():
                row[name] = amount if row[name] is None else row[name] + amount
        for name, stored in self.stored.items():
            if row[name] is not None:
                row[name] = stored(row[name])
        return row

    def settle(self, limit: int) -> None:
        """The batch is written: forget its effects; keep at most `limit` rows that were read."""
        if len(self.known) > limit:
            self.known.clear()
        else:
            for key in [key for key in self.sums if key in self.known]:
                self.known[key] = self.now(key)
            for key, effect in self.effects.items() if self.reads else ():
                if key in self.known or effect.outcome is _ROW:
                    self.known[key] = self.now(key)
        self.sums.clear()
        self.signatures.clear()
        self.effects.clear()

    def discard(self) -> None:
        """Forget the batch's effects, unwritten, and all rows that were read."""
        self.known.clear()
        self.sums.clear()
        self.signatures.clear()
        self.effects.clear()
