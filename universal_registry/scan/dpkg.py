"""Debian packages.

The rows of `dpkg-query -W`, under their plain name; `name:arch` for another than dpkg's own architecture.
"""

from __future__ import annotations

from collections.abc import Iterator

from universal_registry.scan.base import Found, Source, SourceReader, always, whole

_STATUS = "/var/lib/dpkg/status"
_STATUS_BYTES = 128 << 20
_FIELDS = ("Package", "Status", "Version", "Architecture", "Installed-Size", "Description")
_GONE = "not-installed"


_where = always(_STATUS)


def _find(source: Source) -> Iterator[Found]:
    stanzas = list(_stanzas(source.text(_STATUS, _STATUS_BYTES) or ""))
    native = next((row.get("Architecture", "") for row in stanzas if row.get("Package") == "dpkg"), "")
    for row in stanzas:
        status = row.get("Status", "").split()
        name = row.get("Package", "")
        if not name:
            source.skip("an entry without a Package field", _STATUS)
        elif status and status[-1] != _GONE:
            yield from _package(source, name, row, native, status[-1])


def _package(source: Source, name: str, row: dict[str, str], native: str, state: str) -> Iterator[Found]:
    arch = row.get("Architecture")
    foreign = native and arch not in (None, "all", native)
    kibibytes = whole(row.get("Installed-Size", ""), 2**43)
    spec = {
        "version": row.get("Version"),
        "architecture": arch,
        "manager": "dpkg",
        "state": None if state == "installed" else state,  # config-files: removed, its configuration is left
        "installed_size": None if kibibytes is None else kibibytes * 1024,
    }
    title = row.get("Description", "")
    yield from source.found("package", f"{name}:{arch}" if foreign else name, "SystemPackage", spec, title)


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    row: dict[str, str] = {}
    for line in text.split("\n"):
        if not line.strip():
            if row:
                yield row
            row = {}
        elif not line.startswith((" ", "\t")):
            key, colon, value = line.partition(":")
            if colon and key in _FIELDS:
                row[key] = value.strip()
    if row:
        yield row


READER = SourceReader("dpkg", "Debian packages, as `dpkg-query -W` lists them", ("package",), _where, _find)
