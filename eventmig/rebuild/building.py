"""One generation of one read model, from its plan to what `swapping` makes live.

    plan ─▶ shadow tables ─▶ replay (rows + checkpoint together) ─▶ indexes, checks
        ─▶ replay what came meanwhile ─▶ last increment, in the transaction of the swap

Writes its own shadow tables and its own checkpoint; the live tables are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sqlalchemy import Connection, Table, func, select

from eventmig.errors import RebuildError, Where
from eventmig.rebuild import bookkeeping, swap
from eventmig.rebuild.bookkeeping import Generation, Hold, KeptTable, Kind, SetAside, State
from eventmig.rebuild.careful import BATCH, OF_ONE_EVENT, one_by_one, one_by_one_within
from eventmig.rebuild.planning import plan_generation
from eventmig.rebuild.progress import (
    Phase,
    Progress,
    RebuildProgress,
    RebuildResult,
    events_expected,
)
from eventmig.rebuild.read_model import ReadModel
from eventmig.rebuild.replay import Replay, replay, replay_within
from eventmig.rebuild.shadow import Shadow
from eventmig.rebuild.sharing import FoldHelpers, start_helpers
from eventmig.rebuild.side_by_side import of_use, replay_side_by_side
from eventmig.rebuild.summing import replay_sums, sums_of
from eventmig.rebuild.undeclared import refuse_undeclared
from eventmig.stores.faster import Count

_KIND = Kind.READ_MODEL


class ModelBuilding:
    """One read model's rebuild: planned when made (writes), brought on by `run`."""

    def __init__(
        self,
        model: ReadModel,
        connection: Connection,
        plan: Replay,
        release: str,
        tell: Progress,
        *,
        quarantine: bool = False,
    ) -> None:
        self.model = model
        self.connection = connection
        self.plan = replace(plan, batch_size=min(plan.batch_size, BATCH)) if quarantine else plan
        self._quarantine = quarantine
        self._tell = tell
        tables = tuple(KeptTable(name=table.name, schema=table.schema) for table in model.tables)

        def discard(old: Generation) -> None:
            swap.drop(connection, old.tables, old.number)

        with connection.begin():
            self.hold = bookkeeping.take(connection, _KIND, model.name)
            _refuse_foreign_tables(connection, model)
            live = bookkeeping.generation(connection, _KIND, model.name, State.LIVE)
            refuse_undeclared(connection, live, model.tables)
            self.planned = plan_generation(
                connection,
                self.hold,
                version=model.version,
                fingerprint=model.fingerprint,
                release=release,
                source=plan.source.identity(),
                upto=plan.upto,
                tables=tables,
                discard=discard,
            )
            self.at = self.planned.generation
            self.shadow = Shadow(model.tables, self.at.number, connection.dialect.name)
            if not self.planned.resumed:
                # Left behind by hand, or by an older copy of the database.
                swap.drop(connection, tables, self.at.number)
                self.shadow.create(connection)
        self.expected = 0
        self._summed = 0
        self._count: Count | None = None

    def run(self, helpers: FoldHelpers | None = None) -> None:
        """Replay up to the plan's last position, and check that nothing was left out.

        Raises `RebuildError` naming what went wrong; the same call goes on when mended.
        """
        if self.model.runs_sql:
            helpers = None
        with self.plan.counting() as self._count:
            self.tell(Phase.REPLAYING)
            self._sum(helpers)
            self._fold(self.plan, helpers)
            self.expected = self._count.wait()
        self._count = None
        self.tell(Phase.CHECKING)
        if self.at.events_read != self.expected:
            raise RebuildError(
                f"{self.model.name} was built from {self.at.events_read} events, and the source "
                f"holds {self.expected} of these types up to position {self.plan.upto}",
                remedy="the source was changed while it was read, or since the rebuild began; "
                "verify it, then rebuild with a release of another name, which begins anew",
            )

    def build_indexes(self) -> None:
        """Build what indexes there can be before the swap."""
        with self.connection.begin():
            self.hold.fence(self.connection)
            swap.build_indexes(self.connection, self.shadow)

    def catch_up(self, upto: int) -> int:
        """Replay what came since, up to a later position; returns how many events that were."""
        before = self.at.events_read
        self.plan = replace(self.plan, upto=upto)
        self._replay(self.plan, Phase.CATCHING_UP)
        self.expected = self.at.events_read
        return self.at.events_read - before

    def last_increment(self, upto: int) -> None:
        """Replay what came since in the caller's transaction, of which it is a part."""
        self.plan = replace(self.plan, upto=upto)
        within = one_by_one_within if self.model.runs_sql else replay_within
        self.at = within(*self._parts(self.plan))

    def set_aside(self) -> list[SetAside]:
        """The events in its quarantine (reads)."""
        return bookkeeping.quarantined(self.connection, self.hold, self.at.number)

    def _sum(self, helpers: FoldHelpers | None) -> None:
        """Replay what the store can sum, if anything, and what is before it."""
        for surely in (False, True):
            sums = sums_of(self.model, self.plan, self.at.position, surely=surely)
            if sums is None:
                return
            if sums.after > self.at.position:
                self._fold(replace(self.plan, upto=sums.after), helpers)
            at_once = 1 if helpers is None else helpers.count + 1
            before = self.at.events_read
            folded = replay_sums(*self._parts(self.plan), sums, at_once)
            self._follow(folded, Phase.REPLAYING)
            self._summed += self.at.events_read - before
            if sums.sure:
                return

    def _fold(self, plan: Replay, helpers: FoldHelpers | None) -> None:
        """Replay event by event what there is left to do, by helpers too where they are of use."""
        helpers = of_use(helpers, self.model, plan, self.at.position)
        if helpers is not None:
            start_helpers(helpers, self.at.position, plan.upto)
            self._follow(replay_side_by_side(*self._parts(plan), helpers), Phase.REPLAYING)
        self._replay(plan, Phase.REPLAYING)

    def _replay(self, plan: Replay, phase: Phase) -> None:
        while True:
            try:
                if not self.model.runs_sql:
                    self._follow(replay(*self._parts(plan)), phase)
                    return
            except OF_ONE_EVENT:
                if not self._quarantine:
                    raise
            self.connection.rollback()
            before = self.at
            self.at = one_by_one(*self._parts(plan), quarantine=self._quarantine)
            if self.at == before:
                return
            self.tell(phase)

    def _parts(
        self, plan: Replay
    ) -> tuple[ReadModel, tuple[Table, ...], Connection, Hold, Generation, Replay]:
        return self.model, self.shadow.tables, self.connection, self.hold, self.at, plan

    def _follow(self, commits: Iterator[Generation], phase: Phase) -> None:
        for at in commits:
            self.at = at
            self.tell(phase)

    def count_rows(self) -> dict[str, int]:
        """How many rows each table has now (reads)."""
        return {
            table.name: self.connection.execute(
                select(func.count()).select_from(target)
            ).scalar_one()
            for table, target in zip(self.shadow.declared, self.shadow.tables, strict=True)
        }

    def tell(self, phase: Phase) -> None:
        """Report how far it is."""
        if self._count is not None:
            self.expected = events_expected(self._count, self.at, self.plan.upto)
        self._tell(
            RebuildProgress(
                name=self.model.name,
                phase=phase,
                generation=self.at.number,
                position=self.at.position,
                upto=self.plan.upto,
                events_read=self.at.events_read,
                events_expected=self.expected,
                resumed=self.planned.resumed,
            )
        )

    def result(self, kept: int | None, rows: dict[str, int], *, swapped: bool) -> RebuildResult:
        """What was made; `kept` is the generation that a rollback brings back (reads)."""
        return RebuildResult(
            name=self.model.name,
            generation=self.at.number,
            kept=kept,
            position=self.at.position,
            events_read=self.at.events_read,
            events_folded=self.at.events_folded,
            events_summed=self._summed,
            rows=rows,
            resumed=self.planned.resumed,
            restarted=self.planned.restarted,
            quarantined=self.set_aside(),
            swapped=swapped,
        )


def _refuse_foreign_tables(connection: Connection, model: ReadModel) -> None:
    """Refuse to take the name of a table of another model, or of something else altogether."""
    owners: dict[tuple[str | None, str], str] = {}
    for name, made in bookkeeping.all_generations(connection, _KIND):
        for kept in made.tables:
            owners[kept.schema, kept.name] = name
    for table in model.tables:
        owner = owners.get((table.schema, table.name))
        if owner not in (None, model.name):
            raise RebuildError(
                f"the table {table.name} belongs to the read model {owner}",
                where=Where(path=table.name),
                remedy=f"give the table of {model.name} another name",
            )
        if owner is None and swap.exists(connection, table):
            _refuse_another_key(connection, table)


def _refuse_another_key(connection: Connection, table: Table) -> None:
    stored = swap.key_columns(connection, table)
    declared = [column.name for column in table.primary_key.columns]
    if stored != declared:
        raise RebuildError(
            f"a table {table.name} is there that eventmig did not make, with the key "
            f"({', '.join(stored)}) and not ({', '.join(declared)})",
            where=Where(path=table.name),
            remedy="it may hold something else: give the read model's table another name, or "
            "rename the old table yourself",
        )
