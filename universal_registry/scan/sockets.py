"""Listening sockets (`endpoint`), called `tcp/127.0.0.1:8080` or `tcp/[::]:22`, with the program where it may be read.

No process id is recorded: it would change at each restart.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Iterator

from universal_registry.scan.base import Found, Source, SourceReader, always

_TABLES = (("/proc/net/tcp", "tcp"), ("/proc/net/tcp6", "tcp"), ("/proc/net/udp", "udp"), ("/proc/net/udp6", "udp"))
_LISTEN, _UNCONNECTED = "0A", "07"
_ANY_REMOTE = re.compile(r"0+:0000")
_MOST_DESCRIPTORS = 1_000_000


_where = always(*(path for path, _ in _TABLES), "/proc/*/fd")


def _find(source: Source) -> Iterator[Found]:
    sockets: dict[tuple[str, str, int], set[str]] = {}
    for path, protocol in _TABLES:
        for address, port, inode in _listening(source, path, protocol):
            sockets.setdefault((protocol, address, port), set()).add(inode)
    wanted = {inode for inodes in sockets.values() for inode in inodes}
    owners = _owners(source, wanted) if wanted else {}
    for (protocol, address, port), inodes in sorted(sockets.items()):
        shown = f"[{address}]" if ":" in address else address
        programs = sorted({name for inode in inodes for name in owners.get(inode, ())})
        spec = {
            "address": address,
            "port": port,
            "protocol": protocol,
            "process": ", ".join(programs) or None,
        }
        yield from source.found("endpoint", f"{protocol}/{shown}:{port}", "SocketEndpoint", spec, ", ".join(programs))


def _listening(source: Source, path: str, protocol: str) -> Iterator[tuple[str, int, str]]:
    for line in (source.text(path) or "").splitlines()[1:]:
        words = line.split()
        if len(words) < 10 or words[3] != (_LISTEN if protocol == "tcp" else _UNCONNECTED):
            continue
        if protocol == "udp" and not _ANY_REMOTE.fullmatch(words[2]):
            continue
        match = re.fullmatch(r"([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4})", words[1])
        if match and words[9].isdigit():
            yield _address(match[1]), int(match[2], 16), words[9]


def _address(digits: str) -> str:
    """The kernel prints the address as 32-bit words in the byte order of the machine."""
    words = [int(digits[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(digits), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def _owners(source: Source, wanted: set[str]) -> dict[str, set[str]]:
    """Inode -> program names. A process that ends meanwhile, or belongs to someone else, is silently left out."""
    owners: dict[str, set[str]] = {}
    left = _MOST_DESCRIPTORS
    for pid in source.names("/proc"):
        if not (pid.isascii() and pid.isdigit()):
            continue
        descriptors = _descriptors(source, pid)
        left -= len(descriptors)
        if left < 0:
            source.skip("too many open files on this machine; some sockets have no program", "/proc/*/fd")
            break
        held = {inode for number in descriptors if (inode := _inode(source, pid, number)) in wanted}
        if held:
            name = (source.head(f"/proc/{pid}/comm", 64) or b"").decode("utf-8", "replace").strip()
            for inode in held if name else ():
                owners.setdefault(inode, set()).add(name)
    return owners


def _descriptors(source: Source, pid: str) -> list[str]:
    folder = source.real(f"/proc/{pid}/fd")
    try:
        return [] if folder is None else os.listdir(folder)
    except OSError:  # not ours, or gone: neither is worth a line
        return []


def _inode(source: Source, pid: str, number: str) -> str:
    target = source.link(f"/proc/{pid}/fd/{number}") or ""
    return target[8:-1] if target.startswith("socket:[") else ""


READER = SourceReader("sockets", "listening sockets and their programs", ("endpoint",), _where, _find)
