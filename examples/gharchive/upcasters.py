"""From a record of GitHub's timeline to GH Archive's unified schema: v1 → v7.

Every record is an event of one type, `GithubEvent`, whatever its own `type` says. The change
of the schema lies in the envelope (actor, repository, time, JSON text) and is the same for all
of GitHub's events; a chain per type would be one chain twenty times, and a record of a type
that nobody registered would pass through unconverted, without a word. So the record's `type`
stays what it is: a member of the data.

The version is what a record is, not when it was written: a record that has the unified form
already is imported at the last version (`history.version_of`), and no step touches it.

`other` is where the unified schema keeps what it has no member for. It fills in the order of
the steps (repository, actor, organization, url) and becomes text in the last one; so do
e-mail addresses become hashes in the first, before anything moves.
"""

from __future__ import annotations

from eventmig import Registry, ops, upcaster
from eventmig.codec import Value
from eventmig.ops import (
    absent,
    add,
    all_of,
    append,
    apply,
    convert,
    default,
    drop,
    each,
    equals,
    is_kind,
    map_values,
    move,
    not_,
    one_of,
    present,
    put_value,
    ref,
    when,
)
from eventmig.ops.base import Op
from eventmig.paths import PathLike
from examples.gharchive.conversions import HASH_EMAIL, JSON_TEXT, NO_EMAIL, UTC_TEXT
from examples.gharchive.models import TIMELINE_RECORD, TYPE, GithubEvent

REPOSITORY = ("id", "url", "name")
USER = ("id", "login", "gravatar_id", "avatar_url", "url")


# v1 → v2: no e-mail address in clear ---------------------------------------------------------


def hashed(path: PathLike) -> tuple[Op, ...]:
    """The address at a path as its hash; null as the hash of the empty text."""
    no_email: list[tuple[object, object]] = [(None, NO_EMAIL), (NO_EMAIL, NO_EMAIL)]
    return convert(path, HASH_EMAIL), map_values(path, no_email, other=ops.KEEP)


def hashed_or_added(path: str) -> tuple[Op, ...]:
    """The same; a missing address is added, as the hash of the empty text."""
    return *hashed(path), default(path, NO_EMAIL)


# A commit of the Timeline API is a list: [sha, e-mail, message, name, …].
listed_commit = when(
    is_kind("", "array"),
    when(absent((0,)), append("", None, unique=False)),
    when(absent((1,)), append("", None, unique=False)),
    *hashed((1,)),
)

hash_emails = upcaster(
    TYPE,
    1,
    when(
        present("payload.shas"),
        when(is_kind("payload.shas", "array"), each("payload.shas", listed_commit)),
        otherwise=[
            when(
                is_kind("payload.commits", "array"),
                each(
                    "payload.commits",
                    when(is_kind("author", "object"), *hashed_or_added("author.email")),
                ),
            )
        ],
    ),
    when(is_kind("actor_attributes", "object"), *hashed_or_added("actor_attributes.email")),
    why="e-mail addresses become hashes; where there are `shas`, `commits` is left as it is",
)


# v2 → v3, v3 → v4, v4 → v5: who and where ----------------------------------------------------


def taken(source: str, into: str, keys: tuple[str, ...]) -> tuple[Op, ...]:
    """The named members of an object, without nulls, into a new one; the rest into `other`."""
    rest = f"other.{source}"
    return (
        move(source, rest),
        add(into, {}),
        *(when(equals(f"{rest}.{key}", None), drop(f"{rest}.{key}")) for key in keys),
        *(move(f"{rest}.{key}", f"{into}.{key}") for key in keys),
        when(equals(rest, {}), drop(rest)),
        when(equals(into, {}), drop(into)),
    )


def named(source: str, into: str, key: str) -> tuple[Op, ...]:
    """A text as the one member of a new object."""
    waiting = f"other.{source}"
    return move(source, waiting), add(into, {}), move(waiting, f"{into}.{key}")


def described(source: str, into: str, keys: tuple[str, ...], key: str) -> Op:
    """What a record says of a repository, user or organization: an object, or its name alone."""
    is_name = all_of(is_kind(source, "string"), not_(equals(source, "")))
    return when(
        is_kind(source, "object"),
        *taken(source, into, keys),
        otherwise=[when(is_name, *named(source, into, key), otherwise=[drop(source)])],
    )


repository_as_repo = upcaster(
    TYPE,
    2,
    drop("other"),
    add("other", {}),
    when(equals("repository", None), drop("repository")),
    when(
        present("repository"),
        drop("repo"),
        described("repository", "repo", REPOSITORY, "name"),
        otherwise=[described("repo", "repo", REPOSITORY, "name")],
    ),
    why="`repository` (2012–2014) or `repo` (2011) becomes `repo{id, url, name}`",
)

actor_as_object = upcaster(
    TYPE,
    3,
    when(
        is_kind("actor_attributes", "object"),
        drop("actor"),
        *taken("actor_attributes", "actor", USER),
        otherwise=[
            drop("actor_attributes"),
            when(
                is_kind("actor", "string"),
                *named("actor", "actor", "login"),
                otherwise=[described("actor", "actor", USER, "login")],
            ),
        ],
    ),
    why="`actor_attributes`, else `actor`, becomes `actor{id, login, gravatar_id, …}`",
)

organization_and_url = upcaster(
    TYPE,
    4,
    when(
        present("other.repository.organization"),
        drop("org"),
        add("org", {}),
        add("org.login", ref("other.repository.organization")),
        otherwise=[described("org", "org", USER, "login")],
    ),
    move("url", "other.url"),
    why="the repository's organization becomes `org` (and stays in `other`), `url` goes to `other`",
)


# v5 → v6: one spelling of time; nothing empty ------------------------------------------------


def left_out_if_empty(path: str) -> Op:
    """A member that says nothing goes."""
    return when(one_of(path, None, "", {}, []), drop(path))


utc_times = upcaster(
    TYPE,
    5,
    left_out_if_empty("created_at"),
    left_out_if_empty("id"),
    left_out_if_empty("type"),
    convert("created_at", UTC_TEXT),
    why="`created_at` with any offset becomes UTC; empty members are left out",
)


# v6 → v7: JSON text --------------------------------------------------------------------------

UNIFIED_ORDER = (
    "payload",
    "public",
    "repo",
    "actor",
    "created_at",
    "id",
    "org",
    "type",
    "other",
)


def unified_members(record: Value) -> Value:
    """The members of the unified schema, in its order, and no others.

    A function, because an op cannot name what it does not know: it takes members out one by
    one, and leaves the others as they stand.
    """
    assert isinstance(record, dict)
    return {key: record[key] for key in UNIFIED_ORDER if key in record}


json_text_members = upcaster(
    TYPE,
    6,
    default("payload", None),
    default("public", None),
    when(
        equals("payload", None),
        put_value("payload", "null"),
        otherwise=[convert("payload", JSON_TEXT)],
    ),
    when(equals("other", {}), drop("other"), otherwise=[convert("other", JSON_TEXT)]),
    apply(unified_members),
    why="`payload` and `other` become JSON text; members the schema does not know go",
)


registry = Registry(
    [
        hash_emails,
        repository_as_repo,
        actor_as_object,
        organization_and_url,
        utc_times,
        json_text_members,
    ],
    schemas=[TIMELINE_RECORD, GithubEvent],
)
