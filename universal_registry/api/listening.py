"""Where the API listens: binding sockets, who is at the other end of them, and which hosts they answer to."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import socket
import stat
import struct
import sys
from pathlib import Path

import msgspec

from universal_registry.client.wire import split_address
from universal_registry.kernel.errors import Conflict, UsageError

SOCKET_PATH_BYTES = 100
_SOCKET_MODE = 0o660
_BACKLOG = 1024
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`idle`: seconds in which a connection must send a whole request head. `body`: seconds for a whole body.
    `line`: bytes of the request line and of each header; `headers`: how many of these."""

    idle: float = 30.0
    body: float = 30.0
    line: int = 16 << 10
    headers: int = 100


def short_path(path: Path, short_folder: Path) -> Path:
    """The path, or one with a hashed name in `short_folder` when it is longer than a socket's may be."""
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    short = short_folder / f"ureg-{digest}.sock"
    if len(os.fsencode(short)) > SOCKET_PATH_BYTES:
        raise UsageError(f"the socket path {short} is longer than {SOCKET_PATH_BYTES} bytes", hint="--socket PATH")
    return short


def allowed_hosts(host: str, port: int) -> frozenset[str]:
    """What the Host header may be on a listener: the local names and its own, with the port (80 may be left out)."""
    own = f"[{host}]" if ":" in host else host.lower()
    names = {*_LOCAL_NAMES, *(() if host in _ANY else (own,))}
    found = {f"{name}:{port}" for name in names}
    return frozenset(found | names if port == 80 else found)


def peer_uid(sock: socket.socket) -> int | None:
    """The user at the other end of a Unix socket, as the kernel says it; None where it cannot be had."""
    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return int(uid)
    if sys.platform == "darwin":
        # struct xucred: version, uid, number of groups, groups; LOCAL_PEERCRED is option 1 of level 0.
        version, uid = struct.unpack("iI", sock.getsockopt(0, 1, 76)[:8])
        return int(uid) if version == 0 else None
    return None


def _cannot_listen(listen: str, error: Exception) -> Conflict | UsageError:
    if not isinstance(error, OSError) or isinstance(error, socket.gaierror):
        return UsageError(f"cannot listen on {listen}: no such host", hint="--listen HOST:PORT, with a local address")
    reason = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror
    return Conflict(f"cannot listen on {listen}: {reason}", hint="--listen HOST:PORT takes another; port 0 a free one")


def remove_stale(path: Path) -> None:
    """Remove the socket of a dead daemon. Raises Conflict when one answers, or when the path is no socket."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Conflict(f"{path} is there and is no socket", hint="move it away, or use --socket PATH")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise Conflict(f"{path} is in the way: {error.strerror or error}", hint="use --socket PATH") from None
    raise Conflict(f"another daemon answers at {path}", hint="`ureg down` stops it")


def bind_unix(path: Path) -> socket.socket:
    """A bound socket at `path`, for its user and group; the folder is made, a dead daemon's socket removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path)
        return _bound(path)
    except OSError as error:
        raise Conflict(f"cannot make the socket {path}: {error.strerror}", hint="use --socket PATH") from None


def _bound(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mask holds for the whole process, so nothing else may run, or make a folder, while it is set.
    mask = os.umask(0o777 & ~_SOCKET_MODE)
    try:
        sock.bind(str(path))
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(mask)
    return sock


async def bind_tcp(listen: str) -> tuple[socket.socket, str, frozenset[str]]:
    """A bound TCP socket, its address as `HOST:PORT` with the real port, and what a Host header may be there."""
    host, port = split_address(listen)
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, proto, _, address = found[0]
        sock = socket.socket(family, kind, proto)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            # Listening at once: Linux tells only now that another listener has the port.
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(listen, error) from None
    real = sock.getsockname()[1]
    shown = f"[{host}]:{real}" if ":" in host else f"{host}:{real}"
    return sock, shown, allowed_hosts(host, real)


def same_file(path: Path, bound: os.stat_result) -> bool:
    """Whether the path still leads to the file that was seen there."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (bound.st_dev, bound.st_ino)
