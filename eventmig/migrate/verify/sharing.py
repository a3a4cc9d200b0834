"""Work that two processes share: each takes the next unit when it is free.

Nobody knows beforehand who is faster: one of them starts later, the other looks at the
heads first. So units are small, and the helper is only given as many as keep it busy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

U = TypeVar("U")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_AHEAD = 2  # units: one that the helper works on, and one that waits for it


class Share(Protocol[R_co]):
    """What a helper was asked for. Shares come in in the order they were asked for."""

    def there(self) -> bool:
        """Whether it has come in."""
        ...

    def result(self) -> R_co:
        """It; waits for it."""
        ...


class Sharing(Generic[U, R]):
    """Units of work, done by this process (`mine`) and by a helper, if there is one."""

    def __init__(
        self,
        units: Iterable[U],
        mine: Callable[[U], R],
        theirs: Callable[[U], Share[R]] | None = None,
    ) -> None:
        self._units = enumerate(units)
        self._mine = mine
        self._theirs = theirs
        self._given: deque[tuple[int, Share[R]]] = deque()

    def begin(self, ahead: int = _AHEAD) -> None:
        """Give the helper its first units, so many (at least 2); `results` goes on from there."""
        while self._theirs is not None and len(self._given) < max(_AHEAD, ahead):
            following = next(self._units, None)
            if following is None:
                return
            number, unit = following
            self._given.append((number, self._theirs(unit)))

    def results(self) -> Iterator[tuple[int, R]]:
        """Every unit's number (0-based) and result, as they come in."""
        while True:
            self.begin()
            following = next(self._units, None)
            if following is None:
                break
            number, unit = following
            yield number, self._mine(unit)
            while self._given and self._given[0][1].there():
                number, share = self._given.popleft()
                yield number, share.result()
        while self._given:
            number, share = self._given.popleft()
            yield number, share.result()
