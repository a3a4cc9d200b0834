"""PostgreSQL's spelling for the SQL reading of ops: data in `jsonb` columns. Pure.

`->` gives NULL where there is nothing, whatever the left side is. `jsonb` holds numbers as
`numeric`: digits stay, 1.10 = 1.1, and no exponent is ever written. It has no duplicate
keys, no NUL, no half surrogates and no order of keys, so nothing of that can differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

from eventmig.constants import Constant
from eventmig.ops.sql_dialect import WHITESPACE, Dialect, Members, NoSql, Slot, both, case
from eventmig.paths import Path

_TYPES = {"text": "text", "json": "jsonb", "integer": "integer"}
_MEMBER = re.compile(r"\(([a-z]+[0-9]*\.[a-z]+) ->>? (CAST\(:v[0-9]+ AS text\))\)\Z")
"""A member of a column: as cheap to write again as to give it a name."""
_INTEGER = "-?(0|[1-9][0-9]*)"  # no {0,199}: PostgreSQL matches counted digits ten times slower
_LONGEST = 200


class Postgres(Dialect):
    """`Dialect` for PostgreSQL 14 and later; parameters are `:v0`, to be renamed by the driver."""

    name: ClassVar[str] = "postgresql"
    fuses: ClassVar[bool] = True

    def named(self, value: str, body: Callable[[str], str]) -> str:
        if _MEMBER.match(value):
            return body(value)
        # OFFSET 0 keeps the planner from pasting the value into every place that names it.
        table = self.fresh()
        return f"(SELECT {body(f'{table}.v')} FROM (SELECT {value} AS v OFFSET 0) {table})"

    def document(self, data: str, build: Callable[[str], str]) -> str:
        return case((self.readable(data), build(data)))

    def members(self, data: str, changes: Members) -> str:
        """One removal and one concatenation, however many ops: each costs a copy of the data."""
        columns: dict[str, str] = {}
        table = self.fresh()

        def made(slot: Slot) -> str:
            if isinstance(slot, dict):
                inner = [f"{self.string(key)}, {made(value)}" for key, value in slot.items()]
                return f"jsonb_build_object({', '.join(inner)})"
            if slot in changes.sure or slot in changes.sources.values():
                return slot
            return f"{table}.{columns.setdefault(slot, f'c{len(columns)}')}"

        here = {key: slot for key, slot in changes.after.items() if slot is not None}
        gone = [self._key(key) for key, slot in changes.after.items() if slot is None]
        whole = f"({data} - ARRAY[{', '.join(gone)}])" if gone else data
        if here:
            whole = f"({whole} || {made(here)})"
        fits = [self.is_kind(data, "object")]
        if changes.sources:
            keys = ", ".join(map(self._key, changes.sources))
            fits.append(f"{data} ?& ARRAY[{keys}]")
        if changes.absent:
            keys = ", ".join(map(self._key, changes.absent))
            fits.append(f"NOT {data} ?| ARRAY[{keys}]")
        fits += changes.guards
        if columns:
            known = [f"{table}.{column} IS NOT NULL" for column in columns.values()]
            values = ", ".join(f"{value} AS {column}" for value, column in columns.items())
            whole = (
                f"(SELECT {case((both(*known), whole))} FROM (SELECT {values} OFFSET 0) {table})"
            )
        return case((both(*fits), whole))

    def cast(self, expression: str, type_: str) -> str:
        return f"CAST({expression} AS {_TYPES[type_]})"

    def readable(self, data: str) -> str:
        return f"jsonb_typeof({data}) = 'object'"

    def get(self, value: str, path: Path) -> str:
        for part in path:
            if isinstance(part, str):
                value = f"({value} -> {self._key(part)})"
            elif part < 0:
                raise NoSql("a list is not counted from its end")
            else:  # a scalar is a list of one to `->`
                index = self.bind(part, "integer")
                value = case((f"jsonb_typeof({value}) = 'array'", f"({value} -> {index})"))
        return value

    def put(self, value: str, path: Path, new: str) -> str:
        return f"jsonb_set({value}, {self._path(path)}, {new}, true)" if path else new

    def without(self, value: str, path: Path) -> str:
        return f"({value} #- {self._path(path)})"

    def rename(self, parent: str, old: str, new: str) -> str:
        found = self.get(parent, (old,))
        return self.put(self.without(parent, (old,)), (new,), found)

    def copy(self, value: str, path: Path, new: str) -> str:
        if len(path) != 1:
            return super().copy(value, path, new)
        key = self.string(str(path[0]))
        made = self.let(
            new,
            lambda n: case((f"{n} IS NULL", "'{}'"), otherwise=f"jsonb_build_object({key}, {n})"),
        )
        return f"({value} || {made})"

    def in_list(self, value: str) -> str:
        return f"jsonb_build_array({value})"

    def size(self, array: str) -> str:
        return f"jsonb_array_length({array})"

    def map(self, array: str, change: Callable[[str], str]) -> str:
        items, made = self.fresh(), self.fresh()
        return f"""(SELECT CASE WHEN count(*) = count({made}.r)
            THEN coalesce(jsonb_agg({made}.r ORDER BY {made}.n), '[]') END
            FROM (SELECT {items}.n, {change(f"{items}.i")} AS r
                FROM jsonb_array_elements({array}) WITH ORDINALITY {items} (i, n)) {made})"""

    def keep(self, array: str, wanted: Callable[[str], str]) -> str:
        items = self.fresh()
        return f"""(SELECT coalesce(jsonb_agg({items}.i ORDER BY {items}.n)
                FILTER (WHERE {wanted(f"{items}.i")}), '[]')
            FROM jsonb_array_elements({array}) WITH ORDINALITY {items} (i, n))"""

    def some(self, array: str, wanted: Callable[[str], str]) -> str:
        items = self.fresh()
        return f"""(SELECT coalesce(bool_or({wanted(f"{items}.i")}), false)
            FROM jsonb_array_elements({array}) {items} (i))"""

    def append(self, array: str, item: str) -> str:
        return f"({array} || jsonb_build_array({item}))"

    def constant(self, constant: Constant) -> str:
        if "\\u0000" in constant.text:
            raise NoSql("jsonb holds no NUL")
        return self.bind(constant.text, "json")

    def is_kind(self, value: str, kind: str) -> str:
        if kind == "integer":
            return f"(jsonb_typeof({value}) = 'number' AND strpos({value} #>> '{{}}', '.') = 0)"
        return f"jsonb_typeof({value}) = '{kind}'"

    def same(self, value: str, constant: Constant) -> str:
        return f"({value} = {self.constant(constant)})"

    def text(self, string: str) -> str:
        member = _MEMBER.match(string)
        return f"({member[1]} ->> {member[2]})" if member else f"({string} #>> '{{}}')"

    def from_text(self, text: str) -> str:
        return f"to_jsonb({text})"

    def digits(self, number: str) -> str:
        return self.text(number)

    def from_digits(self, text: str) -> str:
        return f"to_jsonb(CAST({text} AS numeric))"

    def find(self, text: str, part: str) -> str:
        return f"strpos({text}, {part})"

    def trim(self, text: str) -> str:
        return f"btrim({text}, {self.string(WHITESPACE)})"

    def is_ascii(self, text: str) -> str:
        return f"octet_length({text}) = char_length({text})"

    def plain_integer(self, text: str) -> str:
        return f"({text} ~ '^{_INTEGER}$' AND {text} <> '-0' AND length({text}) <= {_LONGEST})"

    def plain_number(self, text: str) -> str:
        return f"""({text} ~ '^{_INTEGER}([.][0-9]+)?$' AND length({text}) <= {_LONGEST}
            AND {text} !~ '^-?0[.]00000' AND {text} !~ '^-0([.]0+)?$')"""

    def from_hundredths(self, integer: str) -> str:
        number = f"CAST({integer} AS numeric)"
        return f"""(CASE WHEN {number} < 0 THEN '-' ELSE '' END || div(abs({number}), 100)
            || '.' || lpad(CAST(mod(abs({number}), 100) AS text), 2, '0'))"""

    def is_hundredths(self, text: str) -> str:
        return f"""({text} ~ '^{_INTEGER}[.][0-9][0-9]$' AND {text} <> '-0.00'
            AND length({text}) <= {_LONGEST})"""

    def hundredths_of_text(self, text: str) -> str:
        return self.from_digits(f"replace({text}, '.', '')")

    def hundredths_of_number(self, text: str) -> str:
        cents = f"(CAST({text} AS numeric) * 100)"
        return case((f"{cents} = trunc({cents})", f"to_jsonb(trunc({cents}))"))

    def _key(self, key: str) -> str:
        if "\0" in key:
            raise NoSql("jsonb holds no NUL")
        return self.string(key)

    def _path(self, path: Path) -> str:
        parts = [self._key(str(part)) for part in path]
        return f"ARRAY[{', '.join(parts)}]"
