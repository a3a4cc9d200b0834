"""Ops: declarative changes to an event's data. An op is a value, not a closure.

It can be printed, compared, hashed into a fingerprint, and read in several ways:
`up` (slow, obvious, pure, on the classes themselves; `ops.compiled` has the fast
one), down (`inverse`, another op), schema (`ops.schema`) and SQL (`ops.sql`). A
reading is a function over these classes in a module of its own.

Rules that hold for every op:

- A member that is absent is left absent: nothing is invented for it. A null is a
  value like any other, unless the op says otherwise.
- An op never overwrites: where the place it would write to is taken, it raises
  `OpError` naming the path. `put` and `default` say in their name that they do.
- `inverse()` is the op that takes the result back. `loss` says how well:
  EXACT (`down(up(x)) == x` for every x that `up` accepts), LOSSY (down yields
  data of the form before, but not all that was there, and may refuse some),
  ABSENT (there is no way back).

Build them with the functions of this package (`ops.rename`, `ops.add`, …).
"""

from __future__ import annotations

from eventmig.conditions import (
    absent,
    all_of,
    any_of,
    contains,
    equals,
    is_kind,
    not_,
    one_of,
    present,
    starts_with,
)
from eventmig.ops.base import Loss, Op
from eventmig.ops.build import (
    add,
    add_line,
    append,
    apply,
    combine,
    conversion,
    convert,
    default,
    drop,
    each,
    from_metadata,
    map_values,
    move,
    nest,
    put_value,
    ref,
    remove,
    rename,
    split,
    unnest,
    unwrap,
    when,
    wrap,
)
from eventmig.ops.values import Other

KEEP = Other.KEEP
"""For `map_values`: values that the table does not name stay."""
REFUSE = Other.REFUSE
"""For `map_values`: values that the table does not name are an error."""

__all__ = [
    "KEEP",
    "REFUSE",
    "Loss",
    "Op",
    "absent",
    "add",
    "add_line",
    "all_of",
    "any_of",
    "append",
    "apply",
    "combine",
    "contains",
    "conversion",
    "convert",
    "default",
    "drop",
    "each",
    "equals",
    "from_metadata",
    "is_kind",
    "map_values",
    "move",
    "nest",
    "not_",
    "one_of",
    "present",
    "put_value",
    "ref",
    "remove",
    "rename",
    "split",
    "starts_with",
    "unnest",
    "unwrap",
    "when",
    "wrap",
]
