"""KurrentDB (EventStoreDB) as a store, over gRPC.

url        what a URL names: servers, and which of their streams
client     the client's library, behind one seam
envelope   what events have no place for, inside their metadata
log        reads of the log that go on where they break off
rules      which of its events a reader of the streams would see
read       the store's events, heads and counts
subscription  how far the log is, as it grows
wire       append requests as bytes
items      events as appends take them
exchange   a call whose both directions one thread carries
gather     when to let answers come before they are taken
under_way  append requests on one call
append     appends, many under way at once
fence      what keeps writers out of the streams that a crossing leaves
route      which side is live, in a stream for applications
ledger     the ledger of jobs, in a stream or in a database
entries    what a transaction changes in it, as a stream holds it
write      what a job writes
store      all of it together
"""
