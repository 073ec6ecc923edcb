"""Users and groups (`principal`): a user keeps the plain name, a group is `group:NAME`.

No password field is ever read out.
"""

from __future__ import annotations

from collections.abc import Iterator

from universal_registry.scan.base import Found, Source, SourceReader, always, whole

_USERS = "/etc/passwd"
_GROUP = "/etc/group"
_FIRST_HUMAN, _LAST_HUMAN = 1000, 60_000
_NO_LOGIN = ("nologin", "false", "sync", "halt", "shutdown")
_MOST_ID = 2**32 - 1


_users_in = always(_USERS)


def _find_users(source: Source) -> Iterator[Found]:
    for name, fields in _rows(source, _USERS, 7):
        uid, gid = whole(fields[2], _MOST_ID), whole(fields[3], _MOST_ID)
        if uid is None or gid is None:
            source.skip(f"user {name!r} has no usable uid and gid", _USERS)
            continue
        shell = fields[6].strip()
        login = shell.rpartition("/")[2] not in _NO_LOGIN
        full_name = fields[4].split(",")[0].strip()
        human = uid == 0 or (_FIRST_HUMAN <= uid <= _LAST_HUMAN and login)
        spec = {
            "login": name,
            "uid_number": uid,
            "gid": gid,
            "home": fields[5],
            "shell": shell,
            "full_name": full_name or None,
            "locked": None if login else True,
        }
        yield from source.found("principal", name, "HumanUser" if human else "ServiceAccount", spec, full_name)


_groups_in = always(_GROUP)


def _find_groups(source: Source) -> Iterator[Found]:
    for name, fields in _rows(source, _GROUP, 4):
        gid = whole(fields[2], _MOST_ID)
        if gid is None:
            source.skip(f"group {name!r} has no usable gid", _GROUP)
            continue
        members = [member for member in fields[3].strip().split(",") if member]
        yield from source.found("principal", f"group:{name}", "Team", {"gid": gid, "members": members}, name)


def _rows(source: Source, path: str, count: int) -> Iterator[tuple[str, list[str]]]:
    """The rows of a colon-separated file. The first of several with one name counts, as for the C library."""
    seen: set[str] = set()
    for number, line in enumerate((source.text(path) or "").split("\n"), 1):
        if not line.strip() or line.startswith(("#", "+", "-")):
            continue  # "+" and "-" are NIS directives, not accounts
        fields = line.split(":")
        if len(fields) != count:
            source.skip(f"line {number} has {len(fields)} fields instead of {count}", path)
        elif fields[0] in seen:
            source.skip(f"line {number} repeats {fields[0]!r}", path)
        else:
            seen.add(fields[0])
            yield fields[0], fields


USERS = SourceReader("users", "user accounts of /etc/passwd", ("principal",), _users_in, _find_users)
GROUPS = SourceReader("groups", "groups of /etc/group with their members", ("principal",), _groups_in, _find_groups)
