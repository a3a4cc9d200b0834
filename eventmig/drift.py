"""Drift: where the code no longer is what a release froze. Pure."""

from __future__ import annotations

from eventmig.registry import Registry
from eventmig.release import Release


def drift(registry: Registry, release: Release) -> list[str]:
    """Every difference between the registry and what the release froze, with what to do.

    Steps and schemas that came since are no drift.
    """
    now = registry.freeze(release.name)
    found: list[str] = []
    for name, fingerprint in sorted(release.schemas.items()):
        if name not in now.schemas:
            found.append(f"the schema of {name} is gone; put its model back (old events need it)")
        elif now.schemas[name] != fingerprint:
            found.append(
                f"the schema of {name} changed; give the new form a version of its own, with an "
                "upcaster, and put the old model back"
            )
    for name, fingerprint in sorted(release.upcasters.items()):
        if name not in now.upcasters:
            found.append(f"the upcaster from {name} is gone; put it back")
        elif now.upcasters[name] != fingerprint:
            found.append(
                f"the upcaster from {name} changed after it was released; put it back, and mend "
                "its result in an upcaster of the next version"
            )
    for name, fingerprint in sorted(release.steps.items()):
        if name not in now.steps:
            found.append(f"the step {name!r} is gone; put it back")
        elif now.steps[name] != fingerprint:
            found.append(
                f"the step {name!r} changed after it was released; put it back, and add a new one"
            )
    for type_, version in sorted(release.types.items()):
        current = now.types.get(type_, registry.retired.get(type_))
        if current is None and version > 1:
            found.append(f"{type_} was at v{version}, and the registry does not know it any more")
        elif current is not None and current < version:
            found.append(f"{type_} was at v{version}, and the registry ends at v{current}")
    return found
