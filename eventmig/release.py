"""Releases: what `eventmig release` freezes, and the lock file that keeps it.

`eventmig.lock` is JSON, one line per fact, sorted, so that a diff of two releases
reads like a changelog. Pure: text in, text out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from eventmig import fingerprint
from eventmig.errors import ReleaseError

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A named, frozen set of schema versions with the fingerprints of what makes them.

    - `types`: event type → schema version that is current in this release.
    - `schemas`: `"Type v2"` → fingerprint of its model's JSON Schema (if it has a model).
    - `upcasters`: `"Type v1"` → fingerprint of the step that starts there.
    - `steps`: name of a stream or store step → its fingerprint.
    """

    name: str
    types: Mapping[str, int]
    schemas: Mapping[str, str] = field(default_factory=dict)
    upcasters: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[str, str] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """16 hex digits over everything that decides what an upcast to it yields."""
        parts = (self.types, self.schemas, self.upcasters, self.steps)
        return fingerprint.of_value([dict(part) for part in parts])


@dataclass(frozen=True, slots=True)
class Lock:
    """All releases, oldest first."""

    releases: tuple[Release, ...] = ()

    def get(self, name: str) -> Release:
        """The release of this name; raises `ReleaseError` naming those there are."""
        for release in self.releases:
            if release.name == name:
                return release
        known = ", ".join(r.name for r in self.releases) or "none"
        raise ReleaseError(
            f"there is no release {name!r} in eventmig.lock (there: {known})",
            remedy=f"freeze it with `eventmig release {name}`, or name one of those",
        )

    @property
    def latest(self) -> Release | None:
        """The release frozen last."""
        return self.releases[-1] if self.releases else None

    def with_release(self, release: Release) -> Lock:
        """This lock and one release more; raises `ReleaseError` where the name is taken."""
        if not _NAME.fullmatch(release.name):
            raise ReleaseError(
                f"{release.name!r} cannot be a release's name: it stands in URLs and file names",
                remedy="use letters, digits, '.', '_' and '-', as in 2026.11",
            )
        if any(r.name == release.name for r in self.releases):
            raise ReleaseError(
                f"the release {release.name!r} is frozen already",
                remedy="choose another name (or `--amend` it, while no job to it is ready)",
            )
        return Lock((*self.releases, release))

    def amended(self, release: Release) -> Lock:
        """This lock with its latest release frozen anew; raises `ReleaseError` for another name."""
        latest = self.latest
        if latest is None or latest.name != release.name:
            raise ReleaseError(
                f"only the latest release can be amended ({latest.name if latest else 'none'})",
                remedy="freeze a new one: `eventmig release NAME`",
            )
        return Lock((*self.releases[:-1], release))


def format_lock(lock: Lock) -> str:
    """The lock file's text."""
    releases = [
        {
            "name": r.name,
            "types": dict(sorted(r.types.items())),
            "schemas": dict(sorted(r.schemas.items())),
            "upcasters": dict(sorted(r.upcasters.items())),
            "steps": dict(sorted(r.steps.items())),
        }
        for r in lock.releases
    ]
    return json.dumps({"format": FORMAT, "releases": releases}, indent=2, ensure_ascii=False) + "\n"


def parse_lock(text: str | bytes) -> Lock:
    """The lock file's content; raises `ReleaseError` where it is not one."""
    try:
        content = json.loads(text)
        if content["format"] > FORMAT:
            raise ReleaseError(
                f"eventmig.lock has format {content['format']}, and this eventmig knows {FORMAT}",
                remedy="upgrade eventmig",
            )
        return Lock(
            tuple(
                Release(
                    name=str(entry["name"]),
                    types={str(t): int(v) for t, v in entry["types"].items()},
                    schemas=dict(entry["schemas"]),
                    upcasters=dict(entry["upcasters"]),
                    steps=dict(entry["steps"]),
                )
                for entry in content["releases"]
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(
            f"eventmig.lock is not a lock file: {error}",
            remedy="take it from version control again; do not edit it by hand",
        ) from error
