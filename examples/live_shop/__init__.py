"""A shop that is migrated while it sells: across, back, across again, and for good.

Run it with `python -m examples.live_shop`. It makes a history of release 1, starts tills of
the old code and of the new (each a process of its own, reading and writing all the time),
and takes them through the life of a job by the command line, as an operator would. Each
till logs what it was told was stored; in the end that is compared with both sides.
"""
