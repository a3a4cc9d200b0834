"""What the SQL reading of ops needs of a database: JSON and text, spelled its way.

Every method takes and gives pieces of SQL text. A JSON value is SQL NULL where there is
none (ABSENT); a document is NULL where SQL cannot say what Python would make of it.
Values are never written into the text: `bind` names a parameter for them. Pure.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from eventmig.constants import Constant
from eventmig.paths import Path

WHITESPACE = "".join(map(chr, (*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x1680))) + "".join(
    map(chr, (*range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000))
)
"""What `str.strip` takes off."""

_VARIABLE = re.compile(r"[a-z]+[0-9]*(\.[a-z]+)?\Z")


class NoSql(Exception):  # noqa: N818 - it is no error: the chain is read by Python
    """SQL cannot say this faithfully; the message says what and why."""


def case(*branches: tuple[str, str], otherwise: str = "NULL") -> str:
    """The value of the first branch whose condition is true."""
    tests = " ".join(f"WHEN {condition} THEN {value}" for condition, value in branches)
    return f"CASE {tests} ELSE {otherwise} END"


def both(*conditions: str) -> str:
    """All of these conditions."""
    return "(" + " AND ".join(conditions) + ")" if conditions else "(1 = 1)"


def either(*conditions: str) -> str:
    """At least one of these conditions."""
    return "(" + " OR ".join(conditions) + ")" if conditions else "(1 = 0)"


def member_path(path: Path) -> Path:
    """A path, if it names a member of an object."""
    if not path or not isinstance(path[-1], str):
        raise NoSql("it writes to a place in a list")
    return path


Slot: TypeAlias = "str | dict[str, Slot]"
"""An expression for a value, or the members of an object that ops made."""


@dataclass(slots=True)
class Members:
    """Members of an object after some ops, each an expression over the members before.

    `after` holds the members touched (None: gone). The data fits where every source that
    is looked at is there, none of `absent` is, and `guards` hold; then what is in `sure`
    is not NULL.
    """

    after: dict[str, Slot | None] = field(default_factory=dict)
    absent: dict[str, None] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    guards: list[str] = field(default_factory=list)
    sure: set[str] = field(default_factory=set)


class Dialect(ABC):
    """One database's spelling, and the values bound so far (by parameter name)."""

    name: ClassVar[str]
    fuses: ClassVar[bool]
    """Whether changing members at once (`members`) is faster than op by op."""

    def __init__(self) -> None:
        self.values: dict[str, str | int] = {}
        self._names: dict[tuple[str, str | int], str] = {}
        self._counter = 0

    def bind(self, value: str | int, type_: str) -> str:
        """A parameter of this SQL type for a value; `:v0`, `:v1`, …"""
        name = self._names.setdefault((type_, value), f"v{len(self._names)}")
        self.values[name] = value
        return self.cast(f":{name}", type_)

    def string(self, value: str) -> str:
        """A parameter for a text."""
        return self.bind(value, "text")

    def fresh(self) -> str:
        """A name that no other part of the statement has."""
        self._counter += 1
        return f"t{self._counter}"

    def let(self, value: str, body: Callable[[str], str]) -> str:
        """`body` of a name for the value, which is worked out once (and perhaps in vain)."""
        return body(value) if _VARIABLE.match(value) else self.named(value, body)

    @abstractmethod
    def named(self, value: str, body: Callable[[str], str]) -> str:
        """`let` of what is no name yet."""

    @abstractmethod
    def document(self, data: str, build: Callable[[str], str]) -> str:
        """What `build` makes of stored data; NULL where that is not `readable`."""

    def copy(self, value: str, path: Path, new: str) -> str:
        """`put` where `new` is there; else the value as it is."""
        return self.let(
            value,
            lambda v: self.let(
                new, lambda n: case((f"{n} IS NULL", v), otherwise=self.put(v, path, n))
            ),
        )

    def members(self, data: str, changes: Members) -> str:
        """The data with these members changed at once; NULL where it does not fit them."""
        raise NotImplementedError(f"{self.name} does not fuse")

    @abstractmethod
    def cast(self, expression: str, type_: str) -> str:
        """The expression as a value of type text, json or integer."""

    @abstractmethod
    def readable(self, data: str) -> str:
        """Whether stored data is an object that this database reads as Python does."""

    # members and items ------------------------------------------------------------------------

    @abstractmethod
    def get(self, value: str, path: Path) -> str:
        """What stands at a path; NULL where there is nothing. Raises `NoSql` for odd keys."""

    @abstractmethod
    def put(self, value: str, path: Path, new: str) -> str:
        """The value with another at a path whose parent is there; NULL where `new` is NULL."""

    @abstractmethod
    def without(self, value: str, path: Path) -> str:
        """The value without what stands at a path; that is there."""

    @abstractmethod
    def rename(self, parent: str, old: str, new: str) -> str:
        """An object with the member `old`, which is there, called `new`, which is not."""

    @abstractmethod
    def in_list(self, value: str) -> str:
        """A list of this one value."""

    @abstractmethod
    def size(self, array: str) -> str:
        """How many items a list has."""

    @abstractmethod
    def map(self, array: str, change: Callable[[str], str]) -> str:
        """A list of what `change` makes of each item; NULL where one is NULL."""

    @abstractmethod
    def keep(self, array: str, wanted: Callable[[str], str]) -> str:
        """A list of those items for which a condition is true; NULL where it is NULL once."""

    @abstractmethod
    def some(self, array: str, wanted: Callable[[str], str]) -> str:
        """Whether a condition is true for any item; NULL where it is NULL and never true."""

    @abstractmethod
    def append(self, array: str, item: str) -> str:
        """The list with one more item at its end."""

    # values -----------------------------------------------------------------------------------

    @abstractmethod
    def constant(self, constant: Constant) -> str:
        """A JSON constant."""

    @abstractmethod
    def is_kind(self, value: str, kind: str) -> str:
        """Whether a value is of this JSON type; `integer` is also a `number`."""

    def is_object(self, value: str) -> str:
        """Whether a value is an object."""
        return self.is_kind(value, "object")

    def is_null(self, value: str) -> str:
        """Whether a value is JSON's null."""
        return self.is_kind(value, "null")

    @abstractmethod
    def same(self, value: str, constant: Constant) -> str:
        """JSON equality of a value that is there; NULL where the database cannot tell."""

    @abstractmethod
    def text(self, string: str) -> str:
        """A JSON string as SQL text."""

    @abstractmethod
    def from_text(self, text: str) -> str:
        """SQL text as a JSON string."""

    @abstractmethod
    def digits(self, number: str) -> str:
        """A JSON number as it is written, as SQL text."""

    @abstractmethod
    def from_digits(self, text: str) -> str:
        """A number written as Python would write it, as JSON."""

    # text -------------------------------------------------------------------------------------

    @abstractmethod
    def find(self, text: str, part: str) -> str:
        """Where a text begins in another, counted from 1; 0 where it is not in it."""

    @abstractmethod
    def trim(self, text: str) -> str:
        """The text without the white space that Python strips, at both ends."""

    @abstractmethod
    def is_ascii(self, text: str) -> str:
        """Whether a text is ASCII alone: where upper and lower case mean the same everywhere."""

    @abstractmethod
    def plain_integer(self, text: str) -> str:
        """Whether a text is an integer as Python writes it, of at most 200 digits."""

    @abstractmethod
    def plain_number(self, text: str) -> str:
        """Whether a text is a number that Python writes the same way, without an exponent."""

    @abstractmethod
    def from_hundredths(self, integer: str) -> str:
        """1250 as the text 12.50; NULL where it is too long."""

    @abstractmethod
    def is_hundredths(self, text: str) -> str:
        """Whether a text is an amount such as 12.50, of at most 200 digits."""

    @abstractmethod
    def hundredths_of_text(self, text: str) -> str:
        """The text 12.50 as the JSON number 1250; for what `is_hundredths` alone."""

    @abstractmethod
    def hundredths_of_number(self, text: str) -> str:
        """A number's text, plain, times 100 as a JSON integer; NULL where that is none."""
