"""A KurrentDB for the tests: the real protocol, over a real socket, on a log in memory.

    log.py       the log: expected revisions, idempotence, deletion, truncation; pure
    filters.py   what the filter options of a read let through; pure
    requests.py  what a write's request asks for; pure
    faults.py    what goes wrong, on command
    access.py    who may do what
    streams.py   the gRPC service over the log
    exchange.py  many requests and answers on one call, at little cost
    server.py    starting, stopping, restarting; gossip

The messages are those that ship in the client's package. The semantics are the server's
documentation's; where that is silent, the client's published behaviour decides.
"""
