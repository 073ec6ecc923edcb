"""Why a connection or an exchange failed, in one plain sentence for people."""

from __future__ import annotations

import errno
import re
import ssl

from universal_registry.kernel.errors import AddressRefused, RegistryError
from universal_registry.security.addresses import Url
from universal_registry.transports.net.connection import BrokeOff, HungUp, NotHttp, Unfit
from universal_registry.transports.net.way import Unresolved

_CERTIFICATE = {
    9: "is not valid yet",
    10: "has expired",
    18: "is signed by itself",
    19: "is signed by an authority that is not known here",
    20: "is signed by an authority that is not known here",
    62: "is for another name",
    64: "is for another address",
}
_OS = {
    errno.ECONNREFUSED: "connection refused by {host}",
    errno.EHOSTUNREACH: "no way to {host}",
    errno.ENETUNREACH: "no way to the network of {host}",
    errno.ETIMEDOUT: "no connection to {host}: the system gave up",
    errno.EMFILE: "this process has no file handle left to connect with",
    errno.ENFILE: "this machine has no file handle left to connect with",
}


def trouble(url: Url, error: Exception, *, began: bool) -> str:
    """One plain sentence for what kept an exchange from ending. `began`: the head of the answer had come."""
    host = url.authority
    match error:
        case AddressRefused() if url.address is None:
            return f"{url.host}: {error}"
        case RegistryError():
            return str(error)
        case Unresolved():
            return f"the name {url.host} cannot be resolved: {_os_reason(error)}"
        case BrokeOff():
            return f"the answer of {host} broke off"
        case NotHttp():
            return f"the answer of {host} is not HTTP: {_first_line(str(error))}"
        case HungUp():
            return f"{host} closed the connection without an answer"
        case Unfit():
            return f"no answer from {host}: {error}"
    return _broken(host, error, began=began)


def _broken(host: str, error: Exception, *, began: bool) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        meaning = _CERTIFICATE.get(error.verify_code, f"is not good: {error.verify_message}")
        return f"the certificate of {host} {meaning}"
    if isinstance(error, ssl.SSLError):
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
            return f"{host} does not speak TLS"
        return f"no TLS with {host}: {(error.reason or 'it was broken off').replace('_', ' ').lower()}"
    if began and isinstance(error, OSError):
        return f"the answer of {host} broke off"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return f"connection reset by {host}"
    if isinstance(error, OSError):
        known = _OS.get(error.errno or 0)
        return known.format(host=host) if known else f"no connection to {host}: {_os_reason(error)}"
    return f"a fault of ours in sending to {host}: {type(error).__name__}"


def _os_reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text)[:1].lower() + str(text)[1:]


def _first_line(message: str) -> str:
    """The parser's complaint without the bytes that it quotes."""
    first = re.split(r"""[\n"'(]|: ?b['"]""", message.strip())[0]
    return first.strip(" :").lower()[:80] or "unreadable"


def plain(text: str) -> str:
    """One line that moves no cursor: what cannot be printed is written as `\\uXXXX`."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
