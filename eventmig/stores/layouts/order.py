"""The order over streams: global positions as eventmig counts them, and columns they come from.

A global position is an integer from 1. Most tables have it in a column. Where that column
counts from 0, positions are one higher. Where the order is that of (transaction, position),
both stand in one integer: the transaction's number above, the column's value in the lowest
`transaction.bits`. So positions compare as the tuples do, and any of them gives the tuple back:
pages are bounded by the columns themselves. No I/O happens here.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    literal,
    select,
    tuple_,
)

from eventmig.errors import DataError, NotAStoreError, Where
from eventmig.stores.layouts.columns import Expression, Kind, Xid8
from eventmig.stores.layouts.description import Layout

_BITS: Final = 63


class Numbered(NamedTuple):
    """A column of transactions: as it compares, as a number, and whether it is an `xid8`."""

    compared: Expression
    number: ColumnElement[int]
    xid8: bool


class Order:
    """A layout's order, by this column of positions and that of transactions, if there is one."""

    def __init__(
        self, layout: Layout, position: Expression, transactions: Numbered | None = None
    ) -> None:
        self._layout = layout
        self._position = position
        self._transactions = transactions
        self._shift = 1 - layout.first
        self._bits = 0 if layout.transaction is None else layout.transaction.bits
        self.place: Expression = position + self._shift if self._shift else position
        """The global position of a row, in SQL; NULL where it does not fit."""
        if transactions is not None:
            number = transactions.number
            fits = and_(
                number.between(0, (1 << _BITS - self._bits) - 1),
                position.between(-self._shift, (1 << self._bits) - 1 - self._shift),
            )
            above = number * literal(1 << self._bits, BigInteger())
            self.place = case((fits, above + position + self._shift))

    def name(self) -> str:
        """Tells orders of the same table apart whose positions differ; empty for the usual one."""
        parts = []
        if self._layout.transaction is not None:
            parts.append(f"&transaction={self._layout.transaction.column}:{self._bits}")
        if self._shift:
            parts.append("&first=0")
        return "".join(parts)

    # in SQL

    def after(self, place: int) -> Expression:
        """The condition that a row stands after this global position."""
        condition: Expression = self._columns() > self._bound(place)
        return condition

    def upto(self, place: int) -> Expression:
        """The condition that a row stands at this global position, or before it."""
        condition: Expression = self._columns() <= self._bound(place)
        return condition

    def since(self, transaction: int) -> Expression:
        """The condition that a row is of this transaction, or of a later one."""
        return self._parts()[0] >= self._given(transaction)

    def before(self, transaction: int) -> Expression:
        """The condition that a row is of an earlier transaction."""
        return self._parts()[0] < self._given(transaction)

    def ascending(self, statement: Select[Any]) -> Select[Any]:
        """The statement with its rows in order."""
        return statement.order_by(*self._parts())

    def last(self, source: Any) -> Select[Any]:
        """The global position of the last row; to be bounded."""
        return (
            select(self.place)
            .select_from(source)
            .order_by(*(part.desc() for part in self._parts()))
            .limit(1)
        )

    def _parts(self) -> tuple[Expression, ...]:
        if self._transactions is None:
            return (self._position,)
        return self._transactions.compared, self._position

    def _columns(self) -> Expression:
        return self._position if self._transactions is None else tuple_(*self._parts())

    def _bound(self, place: int) -> Any:
        if self._transactions is None:
            return place - self._shift
        number = self._given(self.transaction(place))
        return tuple_(number, literal(self.column_value(place), BigInteger()))

    def _given(self, transaction: int) -> Expression:
        if self._transactions is not None and self._transactions.xid8:
            return cast(bindparam(None, str(transaction), type_=Text()), Xid8())
        return literal(transaction, BigInteger())

    # in Python

    def at(self, column_value: int, transaction: str | None) -> int:
        """The global position of a row with these values. Raises `DataError`: it does not fit."""
        place = column_value + self._shift
        if self._transactions is None:
            return place
        number = int(transaction or 0)
        if place >> self._bits or number >> _BITS - self._bits:
            raise self.too_large()
        return number << self._bits | place

    def column_value(self, place: int) -> int:
        """What the column of the position holds at a global position."""
        if self._transactions is not None:
            place &= (1 << self._bits) - 1
        return place - self._shift

    def transaction(self, place: int) -> int:
        """The number of the transaction in a global position."""
        return place >> self._bits

    def first_of(self, transaction: int) -> int:
        """The global position before which all events of earlier transactions stand."""
        return transaction << self._bits

    def too_large(self) -> DataError:
        """The error for a row whose global position does not fit."""
        given = self._layout.transaction
        column = "" if given is None else given.column
        return DataError(
            f"its place in the order of ({column}, {self._layout.position}) does not fit: the "
            f"first is 2^{_BITS - self._bits} or more, or the second 2^{self._bits} or more",
            remedy="give the larger one more room by `transaction.bits` in the layout, before the "
            f"first job: there are {_BITS} bits for both",
        )


def numbered(column: Expression, kind: Kind, name: str, url: str) -> Numbered:
    """A column of transactions. Raises `NotAStoreError` for one of a type without an order."""
    match kind:
        case Kind.XID8:
            return Numbered(column, cast(cast(column, Text()), BigInteger()), xid8=True)
        case Kind.INTEGER:
            return Numbered(column, cast(column, BigInteger()), xid8=False)
        case Kind.TEXT:
            number = cast(column, BigInteger())
            return Numbered(number, number, xid8=False)
    raise NotAStoreError(
        f"the column {name!r} does not hold transaction numbers of 64 bits",
        where=Where(store=url),
        remedy="such a column is of type xid8, bigint or text; numbers of 32 bits (xid) begin "
        "anew after some time and have no order",
    )
