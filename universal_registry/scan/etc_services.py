"""/etc/services: one `service` for each name and protocol, called `ssh/tcp`."""

from __future__ import annotations

from collections.abc import Iterator

from universal_registry.scan.base import Found, Source, SourceReader, always, brief, whole

_SERVICES = "/etc/services"
_MOST_PORT = 65_535


_where = always(_SERVICES)


def _find(source: Source) -> Iterator[Found]:
    seen: set[str] = set()
    for number, line in enumerate((source.text(_SERVICES) or "").split("\n"), 1):
        text, _, comment = line.partition("#")
        words = text.split()
        if not words:
            continue
        digits, _, protocol = words[1].partition("/") if len(words) > 1 else ("", "", "")
        port = whole(digits, _MOST_PORT)
        if port is None or not protocol:
            source.skip(f"line {number} is not a name with port/protocol: {brief(text.strip(), 40)!r}", _SERVICES)
            continue
        name = f"{words[0]}/{protocol}"
        if name in seen:
            source.skip(f"line {number} repeats {brief(name)!r}; the first one counts", _SERVICES)
            continue
        seen.add(name)
        title = comment.strip() or ", ".join(words[2:])
        yield from source.found("service", name, "DaemonService", {"port": port, "protocol": protocol}, title)


READER = SourceReader("services", "network services of /etc/services", ("service",), _where, _find)
