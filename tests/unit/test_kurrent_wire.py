"""Append requests packed by hand are what the client's own classes make of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventmig.stores.kurrent import wire
from eventmig.stores.kurrent.client import shared_pb2, streams_pb2

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
_SIZES = st.sampled_from([0, 1, 127, 128, 16_383, 16_384, 100_000])
_BYTES = st.one_of(st.binary(), _SIZES.map(bytes))
_NUMBERS = st.one_of(st.integers(0, 2**63 - 1), st.sampled_from([0, 1, 127, 128, 16_383, 16_384]))
_EVENTS = st.tuples(st.uuids().map(str), _TEXTS, _TEXTS, _BYTES, _BYTES)


@given(_NUMBERS, _TEXTS, _NUMBERS, st.lists(_EVENTS, max_size=3))
def test_a_request_reads_as_the_classes_write_it(
    number: int,
    stream: str,
    revision: int,
    events: list[tuple[str, str, str, bytes, bytes]],
) -> None:
    packed = wire.request(number, stream, revision, [wire.proposed(*event) for event in events])
    wanted = streams_pb2.BatchAppendReq(is_final=True)
    wanted.correlation_id.structured.least_significant_bits = number
    wanted.options.stream_identifier.stream_name = stream.encode()
    wanted.options.deadline.seconds = 315_576_000_000
    if revision:
        wanted.options.stream_position = revision - 1
    else:
        wanted.options.no_stream.SetInParent()
    for id_, type_, content_type, data, metadata in events:
        wanted.proposed_messages.add(
            id=shared_pb2.UUID(string=id_),
            metadata={"type": type_, "content-type": content_type},
            custom_metadata=metadata,
            data=data,
        )
    assert streams_pb2.BatchAppendReq.FromString(packed) == wanted
