"""What the filter of a read lets through."""

from __future__ import annotations

import re
from collections.abc import Callable

from esdbclient.protos.Grpc import streams_pb2

from tests.kurrent_server.log import Record

_Options = streams_pb2.ReadReq.Options


def passes(options: _Options) -> Callable[[Record], bool]:
    """The read's own filter, as a function."""
    if options.WhichOneof("filter_option") != "filter":
        return lambda record: True
    kind = options.filter.WhichOneof("filter")
    by_stream = kind == "stream_identifier"
    expression = getattr(options.filter, kind)
    prefixes = tuple(expression.prefix)
    if prefixes:
        return lambda record: (record.stream if by_stream else record.event.type).startswith(
            prefixes
        )
    pattern = re.compile(expression.regex)
    return lambda record: bool(pattern.search(record.stream if by_stream else record.event.type))
