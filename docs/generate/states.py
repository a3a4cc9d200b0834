"""The page about the states of a job, from the table of transitions."""

from __future__ import annotations

from docs.generate.text import NOTE, code, table
from eventmig.migrate.states import ENDED, FOLLOWS, State

_MEANING = {
    State.PLANNED: "recorded; nothing was copied yet",
    State.BACKFILLING: "copies the source up to where it ended when the job began",
    State.CATCHING_UP: "copies what came to the source since",
    State.VERIFYING: "reads both sides back and compares",
    State.READY: "the target is proven right, up to where the source ended",
    State.PAUSED: "everything else is copied, but events are in quarantine",
    State.FAILED: "an error stopped it; the reason is recorded, and the same command resumes",
    State.CANCELLED: "ended, and what it wrote is deleted",
}
_SIDE = (State.PAUSED, State.FAILED, State.CANCELLED)


def page() -> str:
    """The whole page."""
    rows = [
        (code(s.value), _MEANING[s], ", ".join(sorted(f.value for f in FOLLOWS[s])) or "nothing")
        for s in State
    ]
    return "\n".join(
        [
            "# The states of a job\n",
            NOTE,
            "A job's state is kept in the ledger, beside the target. Every transition is written "
            "in the transaction of what it is about, with its moment and its reason; `eventmig "
            "history` lists them. A transition that is not drawn here is refused.\n",
            "```mermaid\n" + diagram() + "```\n",
            "Not drawn: every state that is not ended may also become "
            + " or ".join(code(s.value) for s in State if _everywhere(s))
            + ".\n",
            table(["state", "what it means", "what may follow"], rows),
            "A process that is killed leaves the state as it was. That is no fault: the lock on "
            "the target went with the process, and the next one takes the job over with a higher "
            "**epoch**, which every transaction checks. So one that only seemed dead can write no "
            "more.\n",
            "Not there yet: `cutting_over`, `reverse_window`, `completed` and what belongs to them "
            "([limits](../limits.md)).\n",
        ]
    )


def diagram() -> str:
    """The transitions as a mermaid state diagram, without those every state has."""
    lines = ["stateDiagram-v2", "    [*] --> planned"]
    for state in State:
        for after in State:
            if after in FOLLOWS[state] and not _everywhere(after):
                lines.append(f"    {state.value} --> {after.value}")
    lines += [f"    {state.value} --> [*]" for state in State if state in ENDED]
    return "\n".join(lines) + "\n"


def _everywhere(after: State) -> bool:
    """Whether all states but the ended ones and itself lead to this one."""
    others = [s for s in State if s not in ENDED and s is not after]
    return after in _SIDE and all(after in FOLLOWS[s] for s in others)
