"""A node in a process of its own: prints its URL, and ends with its standard input."""

from __future__ import annotations

import sys

from tests.kurrent_server.server import running

if __name__ == "__main__":
    with running(max_append=16 * 1024 * 1024) as node:
        print(node.url, flush=True)
        sys.stdin.read()
