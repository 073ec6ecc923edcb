"""One connection to the daemon: opening it, and HTTP/1.1 answers read from it (lengths and chunks, nothing else)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO

from universal_registry.kernel.errors import Forbidden, NotFound, TimedOut, Unreachable, Untrusted, UsageError

if TYPE_CHECKING:
    import socket
    import ssl

_LINE = 1 << 16
_HEADERS = 200
_CHUNK = 1 << 16
TLS = "https://"
"""An address that begins so is spoken to under TLS."""
TRUST_HINT = "name its authority: --ca of `ureg context add` and `ureg follow`"


def connect(address: str, timeout: float, ca_file: str | None = None) -> socket.socket:
    """A connected socket. `ca_file`: authorities of an `https://HOST:PORT`, instead of the system's.

    Raises Unreachable, Untrusted, Forbidden, TimedOut, NotFound (no such file), or UsageError for what is no address.
    """
    import socket

    try:
        if address.startswith("/"):
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                made.settimeout(timeout)
                made.connect(address)
            except BaseException:
                made.close()
                raise
            return made
        host, port = split_address(address.removeprefix(TLS))
        made = socket.create_connection((host, port), timeout)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _sealed(made, host, ca_file) if address.startswith(TLS) else made
    except PermissionError:
        raise Forbidden(f"the socket {address} is not open to you", hint="use TCP and a token") from None
    except TimeoutError:
        raise TimedOut(f"{address} did not accept a connection within {timeout:g} s") from None
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "is it up, and does it speak TLS?" if address.startswith(TLS) else "`ureg up` starts one"
        raise Unreachable(f"no daemon answers at {address}: {reason}", hint=hint) from None


def _sealed(made: socket.socket, host: str, ca_file: str | None) -> socket.socket:
    """The connection under TLS, with the certificate and the name checked."""
    import ssl

    try:
        return trusted(ca_file).wrap_socket(made, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        made.close()
        raise Untrusted(f"the certificate of {host} is not good: {error.verify_message}", hint=TRUST_HINT) from None
    except BaseException:
        made.close()
        raise


def trusted(ca_file: str | None) -> ssl.SSLContext:
    """Whom to believe: the authorities of that file, else those of the system. Raises NotFound, UsageError."""
    import ssl

    try:
        return ssl.create_default_context(cafile=ca_file)
    except FileNotFoundError:
        raise NotFound(f"there is no file {ca_file!r:.200} with the authority") from None
    except (OSError, ValueError):
        raise UsageError(f"{ca_file!r:.200} holds no certificate in PEM") from None


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` as its parts. Raises UsageError."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if colon and host and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 65536:
        return host, int(port)
    raise UsageError(f"{address[:80]!r} is not an address", hint="HOST:PORT, or the absolute path of a socket")


class Connection:
    """A socket and what has been read of it. `reusable`: the last answer was read to its end, and more may follow."""

    def __init__(self, address: str, timeout: float, ca_file: str | None = None) -> None:
        self.sock = connect(address, timeout, ca_file)
        self._sealed = address.startswith(TLS)
        self.reader: BinaryIO = self.sock.makefile("rb")
        self.reusable = True

    def close(self) -> None:
        self.reader.close()
        self.sock.close()

    def still_open(self, timeout: float) -> bool:
        """Whether the far side has neither closed an idle connection nor sent something unasked."""
        import socket

        if self._sealed:  # nothing can be looked at there without being taken
            return False
        self.sock.setblocking(False)
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self.sock.settimeout(timeout)
        return False

    def send(self, data: bytes) -> None:
        self.reusable = False
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            # The far side stopped reading: perhaps it has already said why (413). Reading the answer will tell.
            return

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the final answer; interim ones (1xx) are passed over."""
        while True:
            parts = self._line().split(b" ", 2)
            if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
                raise ValueError("no HTTP status line")
            status = int(parts[1])
            headers: dict[str, str] = {}
            while line := self._line():
                name, colon, value = line.decode("latin-1").partition(":")
                if not colon or len(headers) >= _HEADERS:
                    raise ValueError("a bad header")
                headers[name.strip().lower()] = value.strip()
            if status >= 200:
                return status, headers

    def chunks(self, method: str, status: int, headers: Mapping[str, str]) -> Iterator[bytes]:
        """The body, piece by piece."""
        keep = headers.get("connection", "").lower() != "close"
        if method == "HEAD" or status in (204, 304):
            pass
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            yield from self._chunked()
        elif "content-length" in headers:
            yield from self._exactly(int(headers["content-length"]))
        else:
            keep = False
            while piece := self.reader.read1(_CHUNK):  # type: ignore[attr-defined]
                yield piece
        self.reusable = keep

    def _chunked(self) -> Iterator[bytes]:
        while size := int(self._line().split(b";")[0], 16):
            yield from self._exactly(size)
            if self._line():
                raise ValueError("a chunk that does not end")
        while self._line():
            pass  # trailers say nothing that we use

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size > 0:
            # read1: what has arrived, so that a stream's lines come when they are sent
            piece = self.reader.read1(min(size, _CHUNK))  # type: ignore[attr-defined]
            if not piece:
                raise EOFError
            size -= len(piece)
            yield piece

    def _line(self) -> bytes:
        line = self.reader.readline(_LINE)
        if not line.endswith(b"\n"):
            raise ValueError("a line without end") if len(line) >= _LINE else EOFError
        return line.rstrip(b"\r\n")
