"""Who may do what: users with passwords, and the access lists in the streams' metadata."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import grpc

from tests.kurrent_server.log import Log

ADMIN = "admin"


@dataclass(slots=True)
class Access:
    """`users` by name; without any, everybody is the admin (an insecure server).

    `all_readers` are those who may read `$all` besides the admin.
    """

    users: dict[str, str] = field(default_factory=dict)
    all_readers: set[str] = field(default_factory=set)

    def user(self, context: grpc.ServicerContext) -> str:
        """Who calls; aborts the call where the password is wrong."""
        if not self.users:
            return ADMIN
        given = dict(context.invocation_metadata()).get("authorization", "")
        if not given:
            return ""
        text = given if isinstance(given, str) else given.decode()
        name, _, password = base64.b64decode(text.removeprefix("Basic ")).decode().partition(":")
        if self.users.get(name) != password:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "")
        return name

    def may_read_all(self, user: str) -> bool:
        return user == ADMIN or user in self.all_readers

    def may(self, user: str, right: str, stream: str, log: Log) -> bool:
        """Whether the stream's `$acl` gives this right (`$r`, `$w`, `$d`) to the user."""
        if user == ADMIN:
            return True
        if stream.startswith("$"):
            return False
        listed = log.metadata(stream).get("$acl", {}).get(right)
        if listed is None:
            return True
        names = [listed] if isinstance(listed, str) else listed
        return "$all" in names or user in names
