"""The page about the states of a job, from the table of transitions."""

from __future__ import annotations

from docs.generate.text import NOTE, code, table
from eventmig.migrate.states import FOLLOWS, State

_MEANING = {
    State.PLANNED: "recorded; nothing was copied yet",
    State.BACKFILLING: "copies the source up to where it ended when the job began",
    State.CATCHING_UP: "copies what came to the source since",
    State.VERIFYING: "reads both sides back and compares",
    State.READY: "the target was proven right; a follower keeps it in step",
    State.CUTTING_OVER: "writers are shut out of the old side until the switch, or until it "
    "falls back",
    State.REVERSE_WINDOW: "the application uses the new side; what it appends is taken back to "
    "the old one",
    State.REVERSING: "writers are shut out of the new side until the switch back, or until it "
    "falls back",
    State.REVERSED: "the application uses the old side again; it can be cut over once more",
    State.COMPLETED: "the new side is the only one; there is no way back any more",
    State.PAUSED: "stopped by `eventmig pause`, or everything else is copied and events are in "
    "quarantine",
    State.THROTTLED: "waits for what the reason says",
    State.FAILED: "an error stopped it; the reason is recorded, and the same command resumes",
    State.NEEDS_OPERATOR: "the side that is closed changed all the same: only a person can tell "
    "what is right; `eventmig resume` looks again",
    State.CANCELLED: "ended, and what it wrote is deleted",
}
_SIDE = (State.PAUSED, State.THROTTLED, State.FAILED, State.CANCELLED)


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
            "Not drawn: the side states "
            + ", ".join(code(s.value) for s in _SIDE)
            + ", which most states before the cut-over may become; the table has them all.\n",
            table(["state", "what it means", "what may follow"], rows),
            "A process that is killed leaves the state as it was. That is no fault: the lock on "
            "the target went with the process, and the next one takes the job over with a higher "
            "**epoch**, which every transaction checks. So one that only seemed dead can write no "
            "more.\n",
        ]
    )


def diagram() -> str:
    """The transitions as a mermaid state diagram, without those of the side states."""
    lines = ["stateDiagram-v2", "    [*] --> planned"]
    for state in State:
        for after in State:
            if after in FOLLOWS[state] and state not in _SIDE and after not in _SIDE:
                lines.append(f"    {state.value} --> {after.value}")
    lines += [f"    {state.value} --> [*]" for state in State if state is State.COMPLETED]
    return "\n".join(lines) + "\n"
