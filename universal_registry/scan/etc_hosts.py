"""/etc/hosts: one `host_alias` for each name and address that a line begins with, called `NAME@ADDRESS`.

The address belongs to the name because `localhost` usually stands there twice, and because a plain name is what an ssh
host keeps. Lines that agree in both are one record with all their further names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from universal_registry.scan.base import Found, Source, SourceReader, always, brief

_HOSTS = "/etc/hosts"


_where = always(_HOSTS)


def _find(source: Source) -> Iterator[Found]:
    rows: dict[tuple[str, str], dict[str, None]] = {}
    for number, line in enumerate((source.text(_HOSTS) or "").split("\n"), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) < 2 or not _is_address(words[0]):
            source.skip(f"line {number} is not an address with names: {brief(line.strip(), 40)!r}", _HOSTS)
            continue
        rows.setdefault((words[1], words[0]), {}).update(dict.fromkeys(words[2:]))
    for (name, address), others in rows.items():
        spec = {"address": address, "hostname": name, "aliases": list(others) or None, "file": _HOSTS}
        yield from source.found("host_alias", f"{name}@{address}", "HostsFileAlias", spec, name)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


READER = SourceReader("hosts", "names in /etc/hosts", ("host_alias",), _where, _find)
