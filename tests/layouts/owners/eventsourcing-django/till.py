"""Two applications of one Django project, a till and a stall, with sales in the same tables.

VERSION=1 is what wrote the history; VERSION=2 reads version 2 alone. The database is what
DATABASE says, as JSON.
"""

from __future__ import annotations

import json
import os
from decimal import Decimal

import django
from django.conf import settings
from django.core.management import call_command
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

settings.configure(
    INSTALLED_APPS=["eventsourcing_django"],
    DATABASES={"default": json.loads(os.environ["DATABASE"])},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()
os.environ["PERSISTENCE_MODULE"] = "eventsourcing_django"

if os.environ["VERSION"] == "1":

    class Sale(Aggregate):
        @event("Opened")
        def __init__(self, clerk: str):
            self.clerk, self.cents = clerk, 0

        @event("Rung")
        def ring(self, price: str):
            self.cents += int(Decimal(price) * 100)

else:

    class Sale(Aggregate):
        class Opened(Aggregate.Created):
            clerk: str

        class Rung(Aggregate.Event):
            class_version = 2
            cents: int

            @staticmethod
            def upcast_v1_v2(state):
                raise RuntimeError("version 1 is still stored")

        @event(Opened)
        def __init__(self, clerk: str):
            self.clerk, self.cents = clerk, 0

        @event(Rung)
        def ring(self, cents: int):
            self.cents += cents


class Till(Application):
    is_snapshotting_enabled = True


class Stall(Till):
    pass


def applications() -> list[Till]:
    return [Till(), Stall()]


def migrate() -> None:
    """Make the tables, as `manage.py migrate` does."""
    call_command("migrate", verbosity=0)


def write() -> None:
    """Sales of both, in turn: each sees holes among its notifications."""
    till, stall = applications()
    for n in range(8):
        for app in (till, stall):
            sale = Sale(clerk=f"Zoë {type(app).__name__} {n} \U0001f600")
            for m in range(n):
                sale.ring(price=f"{m}.{n:02d}")
            app.save(sale)
        if n == 5:
            till.take_snapshot(sale_of(till, -1))


def sale_of(app: Till, n: int):
    return [found.originator_id for found in app.recorder.select_notifications(1, 500)][n]


def read() -> list[object]:
    """Every sale of both from its events; and each one's notifications, in order."""
    out: list[object] = []
    for app in applications():
        notifications = app.recorder.select_notifications(1, 500)
        out.append([(n.id, str(n.originator_id), n.originator_version) for n in notifications])
        found = map(app.repository.get, dict.fromkeys(n.originator_id for n in notifications))
        out.append([(sale.clerk, sale.cents, sale.version) for sale in found])
    return out


def add() -> list[object]:
    """One more event of the last sale of each, appended at the version that it expects."""
    out: list[object] = []
    for app in applications():
        sale = app.repository.get(sale_of(app, -1))
        version = sale.version
        sale.ring(cents=5)
        out.append([app.save(sale)[-1].notification.id, sale.version - version])
    return out


def main(*what: str) -> None:
    """Run these in turn; prints what each returns, as a line of JSON."""
    for name in what:
        print(json.dumps(globals()[name]()))
