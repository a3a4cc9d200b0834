"""GitHub's public events: records of the Timeline API become the unified schema.

`python -m examples.gharchive RAW.jsonl.gz UNIFIED.jsonl.gz` imports one hour as GH Archive
stored it then, upcasts it with eventmig's own commands, and compares every event with what
GH Archive itself made of it.

    upcasters.py     the chain, v1 to v7, top-down
    conversions.py   three conversions of single values that eventmig has no name for
    models.py        what a record of v1 and of v7 looks like
    history.py       records → events and streams
    projections.py   activity per repository and per actor
    compare.py       the copy against reality
    eventmig.toml    the configuration of the job
    __main__.py      the program
"""
