"""What the request of a write asks for, in the log's own words."""

from __future__ import annotations

import re
import uuid
from typing import Any, Final

from esdbclient.protos.Grpc import shared_pb2

from tests.kurrent_server.log import Expected, Proposal, State

_CANONICAL: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def expected_of(options: Any, oneof: str) -> Expected:
    """The revision or state a writer expects."""
    name = options.WhichOneof(oneof)
    if name in ("revision", "stream_position"):
        return int(getattr(options, name))
    return State(name)


def stream_of(options: Any) -> str:
    """The stream that is meant."""
    return str(options.stream_identifier.stream_name.decode())


def proposal(message: Any) -> Proposal:
    """One proposed event."""
    described = message.metadata
    return Proposal(
        id=uuid_text(message.id),
        type=described["type"],
        content_type=described["content-type"],
        data=message.data,
        metadata=message.custom_metadata,
    )


def uuid_text(value: shared_pb2.UUID) -> str:
    """A UUID in either of its forms, as text."""
    if value.WhichOneof("value") == "string":
        text: str = value.string
        return text if _CANONICAL.fullmatch(text) else str(uuid.UUID(text))
    most = value.structured.most_significant_bits & (2**64 - 1)
    least = value.structured.least_significant_bits & (2**64 - 1)
    return str(uuid.UUID(int=most << 64 | least))
