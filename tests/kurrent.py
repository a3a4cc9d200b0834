"""The KurrentDB the tests use: their own server, or the one EVENTMIG_TEST_KURRENTDB names."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

GIVEN = os.environ.get("EVENTMIG_TEST_KURRENTDB")


@contextmanager
def server() -> Iterator[str]:
    """A server's URL for the length of a block."""
    if GIVEN:
        yield GIVEN
    else:
        # Not above: its messages are those of one client, and the tests may run with the other.
        from tests.kurrent_server.server import running

        with running() as node:
            yield node.url


def fresh(url: str, *, order: str = "global") -> str:
    """The same server, with a prefix of its own for the streams: nothing is shared."""
    prefix = f"t{uuid.uuid4().hex[:12]}."
    return f"{url}{'&' if '?' in url else '?'}prefix={prefix}&order={order}"
