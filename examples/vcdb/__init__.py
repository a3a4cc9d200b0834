"""Security incidents of the VERIS Community Database, upcast from VERIS 1.3.0 to 1.3.7.

`python -m examples.vcdb CHAINS.jsonl.gz` imports each incident as it was under 1.3.0, upcasts
it with eventmig's own commands, one upcaster for each real migration, and compares it with
what the incident really became.

    steps/          one file per migration, top-down     upcasters.py    the chain, and the registry
    idioms.py       what the migrations do again         schemas.py      the official JSON Schemas
    history.py      chains → events and streams          validity.py     reality against its schemas
    compare.py      the copy against reality             projections.py  six read models
    eventmig.toml   the configuration of the job         __main__.py     the program
"""
