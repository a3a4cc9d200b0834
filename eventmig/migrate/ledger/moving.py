"""A completed job that moves with its tables: to another namespace, and another schema's ledger."""

from __future__ import annotations

from sqlalchemy import Connection, MetaData, delete, insert, inspect, select

from eventmig.migrate.ledger import tables
from eventmig.migrate.ledger.crossings import back_namespace
from eventmig.migrate.ledger.lifecycle import write_job
from eventmig.migrate.ledger.records import Job


def move(connection: Connection, job: Job, *, namespace: str, schema: str | None) -> None:
    """Say that the job's target has another namespace now; its own is free for another job.

    With a `schema`, all that is known of the job and of its ways back goes into the ledger of
    that schema, which is made where it is not there. Raises `JobLostError` unless this process
    still holds the job.
    """
    write_job(connection, job, namespace=namespace)
    if schema is None:
        return
    there = MetaData()
    theirs = {
        table.name: table.to_metadata(there, schema=schema)
        for table in tables.metadata.sorted_tables
    }
    if not inspect(connection).has_table(tables.format_.name, schema=schema):
        there.create_all(connection)
        connection.execute(insert(theirs[tables.format_.name]).values(format=tables.FORMAT))
    jobs = tables.jobs.c
    ours = (jobs.job_id == job.job_id) | (jobs.namespace == back_namespace(job))
    ids = list(connection.execute(select(jobs.job_id).where(ours)).scalars())
    for table in tables.metadata.sorted_tables:
        if "job_id" in table.c:
            rows = table.c.job_id.in_(ids)
            names = [column.name for column in table.columns]
            connection.execute(
                insert(theirs[table.name]).from_select(names, select(table).where(rows))
            )
            connection.execute(delete(table).where(rows))
