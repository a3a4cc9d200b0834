"""A node: started on a port of its own, stopped, and started again with the same log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
from esdbclient.protos.Grpc import gossip_pb2, gossip_pb2_grpc, streams_pb2_grpc

from tests.kurrent_server.access import Access
from tests.kurrent_server.faults import Faults
from tests.kurrent_server.log import Log
from tests.kurrent_server.streams import Streams

MAX_APPEND = 1024 * 1024
CERTIFICATE = Path(__file__).with_name("tls") / "cert.pem"
"""Of a server that exists in tests only: its key is public."""
KEY = CERTIFICATE.with_name("key.pem")
_HOST = "127.0.0.1"


class Gossip(gossip_pb2_grpc.GossipServicer):
    """Tells clients the members of the cluster."""

    def __init__(self, members: Callable[[], list[tuple[int, bool]]]) -> None:
        self._members = members

    def Read(  # noqa: N802
        self, request: object, context: grpc.ServicerContext
    ) -> gossip_pb2.ClusterInfo:
        states = gossip_pb2.MemberInfo.VNodeState
        return gossip_pb2.ClusterInfo(
            members=[
                gossip_pb2.MemberInfo(
                    state=states.Leader if leads else states.Follower,
                    is_alive=True,
                    http_end_point=gossip_pb2.EndPoint(address=_HOST, port=port),
                )
                for port, leads in self._members()
            ]
        )


class Node:
    """One node; several may share a log, as the members of a cluster do."""

    def __init__(
        self, log: Log | None = None, *, max_append: int = MAX_APPEND, tls: bool = False
    ) -> None:
        self.log = log or Log(clock=lambda: time.time_ns() // 100, max_append=max_append)
        self.faults = Faults()
        self.access = Access()
        self.streams = Streams(self.log, self.faults, self.access)
        self.cluster: list[Node] = [self]
        self.port = 0
        self._tls = tls
        self._server: grpc.Server | None = None

    @property
    def url(self) -> str:
        """What a client connects to; with TLS it must add a user."""
        if self._tls:
            return f"esdb://localhost:{self.port}?TlsCaFile={CERTIFICATE}"
        return f"esdb://{_HOST}:{self.port}?Tls=false"

    def start(self) -> None:
        """Listen: on a free port the first time, on the same one after a stop."""
        pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="kurrent")
        unlimited = (("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0))
        server = grpc.server(pool, options=unlimited)
        streams_pb2_grpc.add_StreamsServicer_to_server(self.streams, server)
        gossip_pb2_grpc.add_GossipServicer_to_server(Gossip(self._members), server)
        address = f"{_HOST}:{self.port}"
        if self._tls:
            pair = (KEY.read_bytes(), CERTIFICATE.read_bytes())
            self.port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        else:
            self.port = server.add_insecure_port(address)
        self.streams.open = True
        server.start()
        self._server = server

    def stop(self) -> None:
        """Break every connection; harmless twice."""
        self.streams.open = False
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self._server = None

    def lead(self) -> None:
        """Become the leader of the cluster; the others name this one from now on."""
        for node in self.cluster:
            node.streams.leader = None if node is self else (_HOST, self.port)

    def _members(self) -> list[tuple[int, bool]]:
        return [(node.port, node.streams.leader is None) for node in self.cluster]


@contextmanager
def running(*, nodes: int = 1, max_append: int = MAX_APPEND, tls: bool = False) -> Iterator[Node]:
    """A node (the leader of a cluster of several) for the length of a block."""
    first = Node(max_append=max_append, tls=tls)
    cluster = [first, *(Node(first.log) for _ in range(nodes - 1))]
    try:
        for node in cluster:
            node.cluster = cluster
            node.start()
        first.lead()
        yield first
    finally:
        for node in cluster:
            node.stop()
