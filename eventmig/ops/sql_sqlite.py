"""SQLite's spelling for the SQL reading of ops: JSON text and its functions (3.40). Pure.

A JSON value is its text, as `->` gives it: with `json_extract` numbers would lose digits and
`true` would be 1. Keys are looked up by their spelling, so that data which spells a
character of a key as an escape is not readable here, nor is data with a key twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from eventmig import codec
from eventmig.constants import Constant
from eventmig.ops.sql_dialect import WHITESPACE, Dialect, NoSql, both, case, either
from eventmig.paths import Path

_KINDS = {
    "string": "('text')",
    "number": "('integer', 'real')",
    "boolean": "('true', 'false')",
}
_EXACT = 15
"""Decimal digits that a double keeps apart."""
_LONGEST_INTEGER = 18
"""Digits that 64 bits always hold."""


class Sqlite(Dialect):
    """`Dialect` for SQLite; parameters are `:v0`, as its driver takes them."""

    name: ClassVar[str] = "sqlite"
    fuses: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self._scopes: list[list[tuple[str, str]]] = []

    def named(self, value: str, body: Callable[[str], str]) -> str:
        # Not a query around the body: SQLite's parser holds a depth of 100 symbols.
        name = self.fresh()
        self._scopes[-1].append((name, value))
        return body(name)

    def document(self, data: str, build: Callable[[str], str]) -> str:
        readable = case((self.readable(data), data))
        return f"({self._select('', [], lambda: self.named(readable, build))})"

    def _select(
        self, source: str, columns: list[str], build: Callable[[], str], *, beside: str = ""
    ) -> str:
        """A SELECT of what `build` makes, as `r`, from a source with these columns.

        What was named on the way are columns, too: each is added by one more query.
        """
        self._scopes.append([])
        result = build()
        queries, names = [], columns
        for name, value in self._scopes.pop():
            query = self.fresh()
            selected = ", ".join([*names, f"{value} AS {name}"])
            queries.append(f"{query} AS MATERIALIZED (SELECT {selected} {source})")
            source, names = f"FROM {query}", [*names, name]
        before = f"WITH {', '.join(queries)} " if queries else ""
        return f"{before}SELECT {result} AS r{beside} {source}"

    def cast(self, expression: str, type_: str) -> str:
        return expression

    def readable(self, data: str) -> str:
        # Escapes of ASCII characters, NUL and surrogates; a path that stands twice.
        return both(
            f"json_valid({data})",
            f"json_type({data}) = 'object'",
            rf"{data} NOT GLOB '*\u00[0-7]*'",
            rf"{data} NOT GLOB '*\u[dD][89abAB]*'",
            rf"instr({data}, '\/') = 0",
            f"(SELECT count(*) = count(DISTINCT fullkey) FROM json_tree({data}))",
        )

    def get(self, value: str, path: Path) -> str:
        return f"({value} -> {self._path(path)})" if path else value

    def put(self, value: str, path: Path, new: str) -> str:
        if not path:
            return new
        return self.let(
            new,
            lambda n: case(
                (f"{n} IS NOT NULL", f"json_set({value}, {self._path(path)}, json({n}))")
            ),
        )

    def without(self, value: str, path: Path) -> str:
        return f"json_remove({value}, {self._path(path)})"

    def rename(self, parent: str, old: str, new: str) -> str:
        members = self.fresh()
        name = f"CASE {members}.key WHEN {self.string(old)} THEN {self.string(new)}"
        found = f"""CASE WHEN instr({members}.key, '"') = 0
            THEN {parent} -> ('$."' || {members}.key || '"') END"""
        return f"""(SELECT CASE WHEN count(*) = count({found}) THEN
            json_group_object({name} ELSE {members}.key END, json({found})) END
            FROM json_each({parent}) {members})"""

    def in_list(self, value: str) -> str:
        return f"json_array(json({value}))"

    def size(self, array: str) -> str:
        return f"json_array_length({array})"

    def map(self, array: str, change: Callable[[str], str]) -> str:
        made = self.fresh()
        return f"""(SELECT CASE WHEN count(*) = count({made}.r)
            THEN json_group_array(json({made}.r)) END
            FROM ({self._each(array, change)}) {made})"""

    def keep(self, array: str, wanted: Callable[[str], str]) -> str:
        made, item = self.fresh(), self.fresh()
        return f"""(SELECT CASE WHEN count(*) = count({made}.r)
            THEN coalesce(json_group_array(json({made}.{item})) FILTER (WHERE {made}.r), '[]') END
            FROM ({self._each(array, wanted, item, beside=f", {item}")}) {made})"""

    def some(self, array: str, wanted: Callable[[str], str]) -> str:
        made = self.fresh()
        return f"""(SELECT CASE WHEN max({made}.r) THEN 1 WHEN count(*) = count({made}.r) THEN 0
            END FROM ({self._each(array, wanted)}) {made})"""

    def _each(
        self, array: str, change: Callable[[str], str], item: str = "", *, beside: str = ""
    ) -> str:
        """A SELECT of what `change` makes of each item of a list, as `r`, in order."""
        item, items = item or self.fresh(), self.fresh()
        # What is named is worked out where it is not asked for, too: also for no list.
        listed = case((f"json_type({array}) = 'array'", array), otherwise="'[]'")
        source = f"""FROM (SELECT {array} -> ('$[' || {items}.key || ']') AS {item}
            FROM json_each({listed}) {items})"""
        return self._select(source, [item], lambda: change(item), beside=beside)

    def append(self, array: str, item: str) -> str:
        return f"json_insert({array}, '$[#]', json({item}))"

    def constant(self, constant: Constant) -> str:
        if "\\u0000" in constant.text:
            raise NoSql("SQLite ends a text at a NUL")
        return self.string(constant.text)

    def is_kind(self, value: str, kind: str) -> str:
        kinds = _KINDS.get(kind, f"('{kind}')")
        return f"json_type({value}) IN {kinds}"

    def same(self, value: str, constant: Constant) -> str:
        wanted = constant.value
        kind = codec.kind(wanted)
        if kind == "null":
            return f"json_type({value}) = 'null'"
        if isinstance(wanted, bool):
            return f"json_type({value}) = '{constant.text}'"
        if isinstance(wanted, str):
            self.constant(constant)
            return both(self.is_kind(value, kind), f"{self.text(value)} = {self.string(wanted)}")
        if kind in ("integer", "number"):
            return self._same_number(value, constant.text)
        if wanted == []:
            return both(f"json_type({value}) = 'array'", f"json_array_length({value}) = 0")
        if wanted == {}:
            return f"json({value}) = '{{}}'"
        raise NoSql(f"SQLite compares no {kind}s by value")

    def _same_number(self, value: str, text: str) -> str:
        number = self.string(text)
        short = both(f"length({value}) <= {_EXACT}", f"{value} NOT GLOB '*[eE]*'")
        if len(text) > _EXACT or "e" in text.lower():
            short = "(1 = 0)"
        return case(
            (f"json_type({value}) NOT IN ('integer', 'real')", "0"),
            (f"{value} = {number}", "1"),
            (short, f"CAST({value} AS REAL) = CAST({number} AS REAL)"),
        )

    def text(self, string: str) -> str:
        return f"({string} ->> '$')"

    def from_text(self, text: str) -> str:
        return f"json_quote({text})"

    def digits(self, number: str) -> str:
        return number

    def from_digits(self, text: str) -> str:
        return text

    def find(self, text: str, part: str) -> str:
        return f"instr({text}, {part})"

    def trim(self, text: str) -> str:
        return f"trim({text}, {self.string(WHITESPACE)})"

    def is_ascii(self, text: str) -> str:
        return f"length(CAST({text} AS BLOB)) = length({text})"

    def plain_integer(self, text: str) -> str:
        bare = f"ltrim({text}, '-')"
        return both(
            f"length({text}) - length({bare}) = (substr({text}, 1, 1) = '-')",
            self._only_digits(bare, 200),
            either(f"{text} = '0'", f"substr({bare}, 1, 1) <> '0'"),
        )

    def plain_number(self, text: str) -> str:
        point = f"instr({text}, '.')"
        whole, rest = f"substr({text}, 1, {point} - 1)", f"substr({text}, {point} + 1)"
        return either(
            self.plain_integer(text),
            both(
                f"{point} > 0",
                self.plain_integer(whole),
                self._only_digits(rest, 200),
                f"{text} NOT GLOB '0.00000*'",
            ),
        )

    def from_hundredths(self, integer: str) -> str:
        number = f"CAST({integer} AS INTEGER)"
        return case(
            (
                both(f"length({integer}) <= {_LONGEST_INTEGER}", f"{integer} <> '-0'"),
                f"""printf('%s%d.%02d', CASE WHEN {number} < 0 THEN '-' ELSE '' END,
                    abs({number}) / 100, abs({number}) % 100)""",
            )
        )

    def is_hundredths(self, text: str) -> str:
        whole, rest = f"substr({text}, 1, length({text}) - 3)", f"substr({text}, -2)"
        return both(
            f"length({text}) BETWEEN 4 AND {_LONGEST_INTEGER}",
            f"substr({text}, -3, 1) = '.'",
            either(self.plain_integer(whole), f"{whole} = '-0'"),
            self._only_digits(rest, 2),
            f"{text} <> '-0.00'",
        )

    def hundredths_of_text(self, text: str) -> str:
        return f"CAST(CAST(replace({text}, '.', '') AS INTEGER) AS TEXT)"

    def hundredths_of_number(self, text: str) -> str:
        point = f"instr({text}, '.')"
        rest = f"substr({text}, {point} + 1)"
        whole = f"substr({text}, 1, {point} - 1)"
        short = f"length({text}) <= {_EXACT}"
        return case(
            (both(short, f"{point} = 0"), f"CAST(CAST({text} || '00' AS INTEGER) AS TEXT)"),
            (
                both(short, f"length(rtrim({rest}, '0')) <= 2"),
                f"CAST(CAST({whole} || substr({rest} || '00', 1, 2) AS INTEGER) AS TEXT)",
            ),
        )

    def _only_digits(self, text: str, most: int) -> str:
        return both(f"length({text}) BETWEEN 1 AND {most}", f"{text} NOT GLOB '*[^0-9]*'")

    def _path(self, path: Path) -> str:
        text = "$"
        for part in path:
            if isinstance(part, int):
                if part < 0:
                    raise NoSql("a list is not counted from its end")
                text += f"[{part}]"
            elif any(c in '"\\' or c < " " for c in part):
                raise NoSql(f"SQLite finds no member called {part!r}")
            else:
                text += f'."{part}"'
        return self.string(text)
