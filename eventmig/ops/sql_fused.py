"""Several ops as one change of an object's members, for the SQL reading.

Where the data has the members that the ops are for, and none in the places they write to,
it is known beforehand where each member ends up, so that the database takes the object
apart and puts it together once instead of once per op. Everything else is left to the
reading op by op, which also takes over where an expression here comes out as NULL: it may
say less than the ops mean, never anything else. Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

from eventmig.constants import Constant
from eventmig.ops.base import Op
from eventmig.ops.control import Each
from eventmig.ops.members import Add, Default, Drop, Keep, Nest, Put, Rename
from eventmig.ops.sql_conditions import guarded
from eventmig.ops.sql_dialect import Dialect, Members, Slot, case, either
from eventmig.ops.values import Convert, MapValues, Other, Unwrap, Wrap

OneOp: TypeAlias = Callable[[Op, str, Dialect], str]
"""Reads one op on a value."""

_FUSIBLE = (Add, Default, Drop, Put, Rename, Convert, MapValues, Wrap, Unwrap, Each)


class _Unfit(Exception):  # noqa: N818 - it is no error: these ops are read one by one
    """Only the data could tell what happens."""


def runs(ops: tuple[Op, ...]) -> Iterator[tuple[Op, ...]]:
    """The ops in order, those beside each other that may be fused together."""
    for fusible, group in itertools.groupby(ops, _is_fusible):
        if fusible:
            yield tuple(group)
        else:
            yield from ((op,) for op in group)


def _is_fusible(op: Op) -> bool:
    if isinstance(op, Nest):
        return not op.parent
    if isinstance(op, Add | Default) and not isinstance(op.value, Constant):
        return False
    if isinstance(op, _FUSIBLE):
        return bool(op.path) and isinstance(op.path[0], str)
    return isinstance(op, Keep)


def changed_members(ops: tuple[Op, ...], data: str, sql: Dialect, one_op: OneOp) -> Members | None:
    """What the ops do to the members of `data`; None where only the data could tell."""
    if not all(map(_is_fusible, ops)):
        return None
    plan = _Plan(data, sql, one_op)
    try:
        for op in ops:
            plan.take(op)
    except _Unfit:
        return None
    return plan.members


class _Plan:
    """Where each member is after the ops so far."""

    def __init__(self, data: str, sql: Dialect, one_op: OneOp) -> None:
        self.members = Members()
        self._data = data
        self._sql = sql
        self._one_op = one_op

    def take(self, op: Op) -> None:
        """Carry one op out on the places; raises `_Unfit`, or `NoSql` as the op itself does."""
        match op:
            case Keep():
                return
            case Nest(keys=keys, under=under):
                self._nest(keys, under)
            case Rename(path=(str(old),), to=to):
                self._rename(old, to)
            case Add(path=(str(key),), value=Constant() as value):
                self._free(key)
                self.members.after[key] = self._constant(value)
            case Default(path=(str(key),), value=Constant() as value):
                self._default(key, value)
            case Put(path=(str(key),)):
                self._forget(key)
                self.members.after[key] = self._constant(op.value)
            case Drop(path=(str(key),)):
                self._forget(key)
                self.members.after[key] = None
            case _:
                self._change(op)

    def _constant(self, value: Constant) -> str:
        made = self._sql.constant(value)
        self.members.sure.add(made)
        return made

    def _slot(self, key: str) -> Slot | None:
        """What stands under a key now; a member nobody touched yet is a source."""
        members = self.members
        if key in members.after:
            return members.after[key]
        members.sources[key] = self._sql.get(self._data, (key,))
        return members.sources[key]

    def _taken(self, key: str) -> Slot | None:
        slot = self._slot(key)
        if slot is not None:
            self.members.after[key] = None
        return slot

    def _free(self, key: str) -> None:
        """Only data without this member fits; raises `_Unfit` where there is one."""
        members = self.members
        if members.after.get(key) is not None:
            raise _Unfit
        if key not in members.after:
            if key in members.sources:
                raise _Unfit
            members.absent[key] = None

    def _rename(self, old: str, to: str) -> None:
        self._free(to)
        if (slot := self._taken(old)) is not None:
            self.members.after[to] = slot

    def _default(self, key: str, value: Constant) -> None:
        members = self.members
        if key in members.after:
            if members.after[key] is None:
                members.after[key] = self._constant(value)
        elif key not in members.sources:
            found = self._sql.get(self._data, (key,))
            members.after[key] = f"coalesce({found}, {self._constant(value)})"

    def _forget(self, key: str) -> None:
        slot = self.members.after.get(key)
        if slot is not None and (isinstance(slot, dict) or slot not in self._known()):
            raise _Unfit  # what makes this value might refuse the event

    def _known(self) -> set[str]:
        """Expressions that are not NULL where the data fits."""
        return {*self.members.sure, *self.members.sources.values()}

    def _nest(self, keys: tuple[str, ...], under: str) -> None:
        self._free(under)
        moved = {key: slot for key in keys if (slot := self._taken(key)) is not None}
        if moved:
            self.members.after[under] = moved

    def _change(self, op: Op) -> None:
        """An op on what stands at, or below, one member."""
        path = op.path  # type: ignore[attr-defined]
        slot = self._slot(path[0])
        if slot is None or isinstance(slot, dict):
            raise _Unfit
        below: Op = replace(op, path=path[1:])  # type: ignore[type-var]
        found = self._guarded(below, slot) if not path[1:] and slot in self._known() else None
        if found is None:
            made = self._one_op(below, slot, self._sql)
        else:
            guards, made = found
            self.members.guards += guards
            self.members.sure.add(made)
        self.members.after[path[0]] = made

    def _guarded(self, op: Op, value: str) -> tuple[list[str], str] | None:
        """An op on a value as conditions and what it makes where they hold; None: as one."""
        sql = self._sql
        match op:
            case Convert(conversion=conversion):
                parts = guarded(conversion, value, sql)
                return parts and ([parts[0]], parts[1])
            case MapValues(table=table, other=other) if other is not Other.KEEP:
                known = [sql.same(value, old) for old, _ in table]
                news = [sql.constant(new) for _, new in table]
                branches = zip(known, news, strict=True)
                if isinstance(other, Constant):
                    return [], case(*branches, otherwise=sql.constant(other))
                return [either(*known)], case(*branches)
        return None
