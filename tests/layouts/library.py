"""An application written with the eventsourcing library, and what runs it in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sqlalchemy import make_url

TILL = '''
"""A till. VERSION=1 is what wrote the history; VERSION=2 reads version 2 alone."""
import os, sys
from decimal import Decimal
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

VERSION = int(os.environ["VERSION"])

if VERSION == 1:

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


def write(app):
    for n in range(12):
        sale = Sale(clerk=f"Zoë {n} \\U0001F600")
        for m in range(n):
            sale.ring(price=f"{m}.{n:02d}")
        app.save(sale)
        if n % 5 == 0:
            app.take_snapshot(sale.id)


def read(app):
    ids = list(dict.fromkeys(n.originator_id for n in app.recorder.select_notifications(1, 500)))
    sales = [app.repository.get(id_) for id_ in ids]
    print(sorted((sale.clerk, sale.cents, sale.version) for sale in sales))


def add(app):
    ids = [n.originator_id for n in app.recorder.select_notifications(1, 500)]
    sale = app.repository.get(ids[-1])
    sale.ring(**({"price": "0.05"} if VERSION == 1 else {"cents": 5}))
    print(app.save(sale)[-1].notification.id, sale.version)


def follow(app):
    with app.recorder.subscribe(gt=0) as subscription:
        print("following", flush=True)
        for notification in subscription:
            print(notification.id, flush=True)
            if notification.id == int(os.environ["LAST"]):
                break


app = Till()
globals()[sys.argv[1]](app)
app.close()
'''


def till(folder: Path, what: str, version: int, **settings: str) -> str:
    """Run the application: "write", "read" or "add"; returns what it prints."""
    process = begin_till(folder, what, version, **settings)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    return printed.strip()


def refused_till(folder: Path, what: str, version: int, **settings: str) -> str:
    """Run the application, which must fail; returns what it says."""
    process = begin_till(folder, what, version, **settings)
    _, errors = process.communicate()
    assert process.returncode != 0
    return errors


def begin_till(folder: Path, what: str, version: int, **settings: str) -> subprocess.Popen[str]:
    """The application, running: "follow" subscribes, and ends with the notification LAST."""
    (folder / "till.py").write_text(TILL, "utf-8")
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.argv[1:] = [{what!r}]; import till"],
        cwd=folder,
        env=os.environ | {"VERSION": str(version), "PYTHONPATH": str(folder)} | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sqlite(path: Path, *, create: bool = False, **more: str) -> dict[str, str]:
    """The library's settings for a SQLite file."""
    return {
        "PERSISTENCE_MODULE": "eventsourcing.sqlite",
        "SQLITE_DBNAME": str(path),
        "CREATE_TABLE": "yes" if create else "no",
        **more,
    }


def postgres(url: str, schema: str = "public", *, create: bool = False) -> dict[str, str]:
    """The library's settings for a PostgreSQL database."""
    place = make_url(url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": str(place.database),
        "POSTGRES_HOST": str(place.query.get("host", place.host)),
        "POSTGRES_PORT": str(place.port or 5432),
        "POSTGRES_USER": str(place.username),
        "POSTGRES_PASSWORD": place.password or "unused",
        "POSTGRES_SCHEMA": schema,
        "CREATE_TABLE": "yes" if create else "no",
    }
