"""The benchmark's read model as the PyPI library `eventsourcing` projects it into PostgreSQL.

As its documentation says: a view that records, in one transaction, what an event comes to and
how far it is; its `ProjectionRunner` feeds it. Importing this needs the library.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

from psycopg import sql

from bench.peer import Settings

# By name, so that the type checker says the same whether the library is there or not.
_application: Any = importlib.import_module("eventsourcing.application")
_postgres: Any = importlib.import_module("eventsourcing.postgres")
_projection: Any = importlib.import_module("eventsourcing.projection")


class Activity(_postgres.PostgresTrackingRecorder):  # type: ignore[misc]
    """Events and cents per customer."""

    def __init__(self, datastore: Any, **options: Any) -> None:
        super().__init__(datastore, **options)
        self._table = sql.Identifier(self.datastore.schema, "activity_per_customer")
        self.sql_create_statements.append(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} (customer_id varchar(36) PRIMARY KEY, "
                "events bigint NOT NULL, cents bigint NOT NULL)"
            ).format(self._table)
        )
        self._upsert = sql.SQL(
            "INSERT INTO {0} AS a VALUES (%s, 1, %s) ON CONFLICT (customer_id) DO UPDATE "
            "SET events = a.events + 1, cents = a.cents + excluded.cents"
        ).format(self._table)

    def count(self, customer_id: str, cents: int, tracking: Any) -> None:
        """Take one event in, and where it stands."""
        with self.datastore.transaction(commit=True) as cursor:
            cursor.execute(self._upsert, (customer_id, cents), prepare=True)
            self._insert_tracking(cursor, tracking)


class ActivityProjection(_projection.Projection):  # type: ignore[misc]
    """Feeds the view."""

    name = "activity"

    def process_event(self, domain_event: Any, tracking: Any) -> None:
        """Process one event of any type."""
        cents = getattr(domain_event, "total_cents", 0) or getattr(domain_event, "amount_cents", 0)
        self.view.count(domain_event.customer_id, cents, tracking)


def seconds(settings: Settings, events: int) -> float:
    """How long the library takes to project so many events of an application, from the first."""
    began = time.perf_counter()
    with _projection.ProjectionRunner(
        application_class=_application.Application,
        projection_class=ActivityProjection,
        view_class=Activity,
        env=dict(settings),
    ) as runner:
        runner.wait(events, timeout=3600)
        return time.perf_counter() - began
