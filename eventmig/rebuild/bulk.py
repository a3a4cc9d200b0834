"""The write of one table's effects, in bulk.

Stands between a fold and the database: effects are grouped by what they change,
and each group is one statement run over its rows. Runs inside the caller's
transaction; never begins or commits one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, TypeAlias

from sqlalchemy import (
    ClauseElement,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Float,
    Numeric,
    Table,
    and_,
    delete,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import DBAPIError, OperationalError

from eventmig.errors import RebuildError, Where
from eventmig.rebuild.faults import NO_CAUSE, Cause, missing, present, where_caused
from eventmig.rebuild.first_rows import first_rows
from eventmig.rebuild.fold import Effect, Needs, Outcome, TableFold
from eventmig.rebuild.shape import Shape
from eventmig.rebuild.staging import FEW, Copied, Given, Staged, stage_of
from eventmig.rebuild.statements import Insert, Statement

Signature: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]
"""The columns an effect sets, and those it adds to."""

_ZERO: ColumnElement[Any] = literal_column("0")
_PG_NUMERIC = 1700  # what PostgreSQL calls the type; others do not look at it
_KEYS_AT_ONCE = 400  # SQLite allows 999 parameters in its older versions


class TableWriter:
    """Writes a fold's effects into `target`, a table with the columns of the shape's."""

    def __init__(self, shape: Shape, target: Table, dialect: Dialect) -> None:
        self.shape = shape
        self.target = target
        self._dialect = dialect
        self._merges: dict[tuple[Signature, bool], Statement | Staged] = {}
        columns = [target.c[name] for name in shape.columns]
        keys = columns[: len(shape.key)]
        self._insert = self._made(self._inserted, columns)
        self._load = self._loaded(columns)
        self._replace = self._made(self._replaced, columns)
        self._delete = self._made(lambda given: delete(target).where(self._at(given)), keys)

    def fetcher(self, connection: Connection) -> Callable[[object], dict[str, Any] | None]:
        """A function that reads one row by its key: all its columns, or None."""
        target, shape = self.target, self.shape
        query = select(*(target.c[name] for name in shape.columns)).where(self._at(Given()))

        def fetch(key: object) -> dict[str, Any] | None:
            bound = {f"p{i}": value for i, value in enumerate(shape.key_values(key))}
            row = connection.execute(query, bound).first()
            return None if row is None else dict(zip(shape.columns, row, strict=True))

        return fetch

    def stored(self) -> Mapping[str, Callable[[Any], Any]]:
        """Per column whose type changes values on their way: what a value comes back as."""
        found: dict[str, Callable[[Any], Any]] = {}
        for name in self.shape.defaults:
            implementation = self.target.c[name].type.dialect_impl(self._dialect)
            there = implementation.bind_processor(self._dialect)
            numeric = isinstance(implementation, Numeric) and not isinstance(implementation, Float)
            back = implementation.result_processor(self._dialect, _PG_NUMERIC if numeric else None)
            if back is not None:  # without it the driver gives values back as they were
                found[name] = _round_trip(there, back)
        return found

    def write(self, connection: Connection, fold: TableFold, *, alone: bool) -> None:
        """Write a batch's effects; the fold is left as it is.

        `alone`: nobody else writes rows of the table.
        Raises `RebuildError` naming the row and the first event that touched it when
        a row is not as an operation needs it, or the database refuses it. Deletes go
        first, then changes, then new rows, so that unique columns can be handed on.
        """
        if alone and len(fold) > FEW and self._is_empty(connection):
            first = first_rows(fold)
            if first is not None:
                self._run(connection, self._load, first, fold)
                return
        deleted: list[tuple[Any, ...]] = []
        replaced: list[tuple[Any, ...]] = []
        inserted: list[tuple[Any, ...]] = []
        updated: dict[Signature, list[tuple[Any, ...]]] = {}
        merged: dict[Signature, list[tuple[Any, ...]]] = {}
        checked: list[tuple[object, Effect]] = []
        many = len(self.shape.key) > 1
        at: Any
        key: Any
        # Keys as tuples: `zip` makes one of each key that is a value alone.
        keys: Iterable[Any] = fold.sums if many else zip(fold.sums, strict=True)
        sums = zip(keys, fold.sums.values(), strict=True)
        if len(fold.signatures) == 1:  # the usual case, without a look at each row
            (only,) = fold.signatures
            merged[(), only] = [(*at, *adds.values()) for at, adds in sums]
        else:
            for at, adds in sums:
                merged.setdefault(((), tuple(adds)), []).append((*at, *adds.values()))
        for key, effect in fold.effects.items():
            at = key if many else (key,)
            outcome, needs = effect.outcome, effect.needs
            if outcome is Outcome.MERGE:
                group = merged if needs is Needs.NOTHING else updated
                values, adds = effect.values, effect.adds
                signature = (tuple(values), tuple(adds))
                group.setdefault(signature, []).append((*at, *values.values(), *adds.values()))
                continue
            if outcome is Outcome.DELETED:
                deleted.append(at)
            elif needs is Needs.ABSENT:
                inserted.append((*at, *effect.values.values()))
                continue
            else:
                replaced.append((*at, *effect.values.values()))
            if needs is not Needs.NOTHING:
                checked.append((key, effect))
        self._check(connection, checked)
        self._run(connection, self._delete, deleted, fold)
        for signature, rows in updated.items():
            statement = self._statement(signature, update_only=True)
            if self._run(connection, statement, rows, fold) != len(rows):
                raise self._first_missing(connection, rows, fold)
        self._run(connection, self._replace, replaced, fold)
        for signature, rows in merged.items():
            statement = self._statement(signature, update_only=False)
            self._run(connection, statement, rows, fold)
        self._run(connection, self._insert, inserted, fold)

    def _statement(self, signature: Signature, *, update_only: bool) -> Statement | Staged:
        found = self._merges.get((signature, update_only))
        if found is None:
            names, adds = signature
            columns = [self.target.c[name] for name in (*self.shape.key, *names, *adds)]
            build = self._updated if update_only else self._merged
            found = self._made(lambda given: build(given, names, adds), columns)
            self._merges[signature, update_only] = found
        return found

    def _made(
        self, build: Callable[[Given], ClauseElement], columns: Sequence[Column[Any]]
    ) -> Statement | Staged:
        alone = Statement(build(Given()), len(columns), self._dialect)
        if self._dialect.name != "postgresql":
            return alone
        stage = stage_of(self.target, alone.sql, columns)
        return Staged(alone, stage, build(Given(stage)), self._dialect)

    def _loaded(self, columns: Sequence[Column[Any]]) -> Statement | Copied:
        alone = Statement(self._inserted(Given()), len(columns), self._dialect)
        if self._dialect.name != "postgresql":
            return alone
        return Copied(alone, self.target, columns, self._dialect)

    def _is_empty(self, connection: Connection) -> bool:
        return connection.execute(select(literal(1)).select_from(self.target)).first() is None

    def _inserted(self, given: Given) -> Insert:
        columns = [self.target.c[name] for name in self.shape.columns]
        return given.insert(self.target, given.values(columns), self._dialect)

    def _replaced(self, given: Given) -> Insert:
        plain = self._inserted(given)
        return self._on_conflict(plain, {n: plain.excluded[n] for n in self.shape.defaults})

    def _updated(
        self, given: Given, names: tuple[str, ...], adds: tuple[str, ...]
    ) -> ClauseElement:
        table, shape, start = self.target, self.shape, len(self.shape.key)
        values: dict[Any, Any] = {}
        for index, name in enumerate((*names, *adds), start):
            column = table.c[name]
            value = given(index, column)
            values[column] = value if name in names else func.coalesce(column, _ZERO) + value
        if not values:  # a patch of nothing: only that the row is there
            values[table.c[shape.key[0]]] = table.c[shape.key[0]]
        return update(table).where(self._at(given)).values(values)

    def _merged(self, given: Given, names: tuple[str, ...], adds: tuple[str, ...]) -> ClauseElement:
        table, shape = self.target, self.shape
        values = given.values([table.c[name] for name in (*shape.key, *names, *adds)])
        starts = {
            name: literal(default, table.c[name].type)
            for name, default in shape.defaults.items()
            if default is not None and name not in names
        }
        for name, start in starts.items():
            column = table.c[name]
            values[column] = values[column] + start if name in adds else start
        clause = given.insert(table, values, self._dialect)
        changes: dict[str, Any] = {name: clause.excluded[name] for name in names}
        for name in adds:
            column, added = table.c[name], clause.excluded[name]
            before = func.coalesce(column, _ZERO) if column.nullable else column
            changes[name] = before + (added - starts[name] if name in starts else added)
        return self._on_conflict(clause, changes)

    def _on_conflict(self, clause: Insert, changes: dict[str, Any]) -> Insert:
        keys = [self.target.c[name] for name in self.shape.key]
        if not changes:
            return clause.on_conflict_do_nothing(index_elements=keys)
        return clause.on_conflict_do_update(index_elements=keys, set_=changes)

    def _at(self, given: Given) -> ColumnElement[bool]:
        columns = [self.target.c[name] for name in self.shape.key]
        return and_(*(c == given(index, c) for index, c in enumerate(columns)))

    def _check(self, connection: Connection, checked: list[tuple[object, Effect]]) -> None:
        there = self._present(connection, [key for key, _ in checked])
        for key, effect in checked:
            if effect.needs is Needs.ABSENT and key in there:
                raise present(self.shape, key, effect.cause)
            if effect.needs is Needs.PRESENT and key not in there:
                raise missing(self.shape, key, effect.cause)

    def _present(self, connection: Connection, keys: Iterable[object]) -> set[object]:
        columns = [self.target.c[name] for name in self.shape.key]
        many = len(columns) > 1
        at: Any = tuple_(*columns) if many else columns[0]
        found: set[object] = set()
        rest = iter(keys)
        while chunk := list(islice(rest, _KEYS_AT_ONCE // len(columns))):
            rows = connection.execute(select(*columns).where(at.in_(chunk)))
            found.update(tuple(row) if many else row[0] for row in rows)
        return found

    def _first_missing(
        self, connection: Connection, rows: list[tuple[Any, ...]], fold: TableFold
    ) -> RebuildError:
        width = len(self.shape.key)
        keys = [row[:width] if width > 1 else row[0] for row in rows]
        there = self._present(connection, keys)
        key = next((key for key in keys if key not in there), keys[0])
        return missing(self.shape, key, _cause(fold, key))

    def _run(
        self,
        connection: Connection,
        statement: Statement | Staged | Copied,
        rows: list[tuple[Any, ...]],
        fold: TableFold,
    ) -> int:
        if not rows:
            return 0
        with suppress(TypeError):  # a key type without an order
            rows.sort()  # fills the pages of the primary key's index in order
        savepoint = connection.begin_nested()
        try:
            changed = statement.run(connection, rows)
        except OperationalError:  # about the database, not about a row
            raise
        except (DBAPIError, OverflowError):
            savepoint.rollback()
            self._find_refused(connection, statement, rows, fold)
            raise
        savepoint.commit()
        return changed

    def _find_refused(
        self,
        connection: Connection,
        statement: Statement | Staged | Copied,
        rows: list[tuple[Any, ...]],
        fold: TableFold,
    ) -> None:
        """Run row by row, and raise for the first that the database refuses."""
        width = len(self.shape.key)
        for row in rows:
            savepoint = connection.begin_nested()
            try:
                statement.run(connection, [row])
            except (DBAPIError, OverflowError) as error:
                savepoint.rollback()
                key = row[:width] if width > 1 else row[0]
                cause = _cause(fold, key)
                if statement is self._insert and self._present(connection, [key]):
                    raise present(self.shape, key, cause) from error
                reason = error.orig if isinstance(error, DBAPIError) else error
                raise RebuildError(
                    f"the database refused a row of {self.shape.table.name}: {reason}",
                    where=Where(key=self.shape.key_text(key)).within(where_caused(cause)),
                    remedy="the event named, if any, is the first that touched this row in its "
                    "batch; look at the table's constraints and at the handler",
                ) from error
            savepoint.commit()


def _cause(fold: TableFold, key: object) -> Cause:
    effect = fold.effects.get(key)
    return NO_CAUSE if effect is None else effect.cause


def _round_trip(
    there: Callable[[Any], Any] | None, back: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    return back if there is None else lambda value: back(there(value))
