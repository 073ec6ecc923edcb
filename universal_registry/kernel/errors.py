"""The whole error tree.

Every error that a user can meet is one of these classes. Each has what a front needs to report it:
`code` (stable, kebab-case), `status` (HTTP), `exit_code` (command line), `retryable`, and a `hint`: what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar


class RegistryError(Exception):
    """Base of the tree. `data` holds machine-readable details (field paths, holders, limits)."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data = data

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


# --- what the caller sent -------------------------------------------------------------------------------------------


class UsageError(RegistryError):
    """The call itself is wrong: an unknown flag, an ambiguous name, a missing argument."""

    code, status, exit_code = "usage", 400, 2


class Malformed(RegistryError):
    """The bytes are not the JSON, YAML or HTTP that they claim to be."""

    code, status, exit_code = "malformed", 400, 6


class TooLarge(RegistryError):
    """A limit on size, depth or count was passed."""

    code, status, exit_code = "too-large", 413, 6


class Invalid(RegistryError):
    """Well formed, but not allowed: a wrong type, an unknown kind, a bad name."""

    code, status, exit_code = "invalid", 422, 6


class NotFound(RegistryError):
    """No such record, kind, target or route."""

    code, status, exit_code = "not-found", 404, 3


class NoSuchCommand(NotFound):
    """The program that is to be run is not there. The exit code is that of shells, `env` and `timeout`."""

    code, exit_code = "no-such-command", 127


class NotExecutable(UsageError):
    """The program that is to be run is there, and the system does not run it. The exit code is that of shells."""

    code, exit_code = "not-executable", 126


class MethodNotAllowed(RegistryError):
    """The path exists, the method does not."""

    code, status, exit_code = "method-not-allowed", 405, 2


# --- who the caller is ----------------------------------------------------------------------------------------------


class Unauthenticated(RegistryError):
    """No token, or one that is unknown, expired or revoked."""

    code, status, exit_code = "unauthenticated", 401, 4


class Forbidden(RegistryError):
    """Known, but not allowed to do this."""

    code, status, exit_code = "forbidden", 403, 4


class MisdirectedRequest(RegistryError):
    """The Host header names a server that this one is not."""

    code, status, exit_code = "misdirected", 421, 4


# --- the state the caller met ---------------------------------------------------------------------------------------


class Conflict(RegistryError):
    """The state does not allow it: a write guard, a name taken, a store of another incarnation."""

    code, status, exit_code = "conflict", 409, 5


class PreconditionFailed(Conflict):
    """If-Match named another revision."""

    code, status = "precondition-failed", 412


class CursorMismatch(Conflict):
    """The cursor is of another incarnation or a rolled-back history. `data["cursor"]` is where to resync."""

    code = "cursor-mismatch"


class CursorGone(CursorMismatch):
    """The cursor, or the revision, lies before the log that is kept. `data["cursor"]` is where to resync."""

    code, status = "cursor-gone", 410


class StoreLocked(Conflict):
    """Another process owns the store. The message names it."""

    code, status, retryable = "store-locked", 503, True


class NewerStore(Conflict):
    """The store was written by a newer version of this program."""

    code = "newer-store"


class KeyMismatch(Conflict):
    """The key file is missing, foreign or unsafe for this store. Never answered by making a new key."""

    code = "key-mismatch"


# --- the world around -----------------------------------------------------------------------------------------------


class Unreachable(RegistryError):
    """No daemon answers."""

    code, status, exit_code, retryable = "unreachable", 503, 7, True


class Untrusted(Unreachable):
    """Somebody answers, but with a certificate that is not trusted here."""

    code, retryable = "untrusted", False


class StorageUnavailable(RegistryError):
    """The database cannot be read or written now."""

    code, status, retryable = "storage-unavailable", 503, True


class StorageFull(StorageUnavailable):
    """No space left on the device: writes are refused, reads and delivery go on."""

    code, status = "storage-full", 507


class ReadOnlyStore(StorageUnavailable):
    """The folder or file cannot be written."""

    code, retryable = "storage-read-only", False


class Corrupt(RegistryError):
    """What is stored contradicts itself: a broken chain, an unreadable seal."""

    code = "corrupt"


class ShuttingDown(RegistryError):
    """The daemon is draining; nothing of this request was done."""

    code, status, exit_code, retryable = "shutting-down", 503, 7, True


class TooMany(RegistryError):
    """As many of these are open as may be; one that ends makes room."""

    code, status, exit_code, retryable = "too-many", 503, 7, True


class TimedOut(RegistryError):
    """A wait ended without what it waited for."""

    code, status, exit_code, retryable = "timed-out", 504, 124, True


# --- propagation ----------------------------------------------------------------------------------------------------


class PartlyDelivered(RegistryError):
    """Some targets have it, others do not yet. `data["targets"]` says which."""

    code, status, exit_code = "partly-delivered", 200, 8


class Refused(RegistryError):
    """A policy, a pause or a breaker says no."""

    code, status, exit_code = "refused", 403, 9


class AddressRefused(Refused):
    """The address must not be connected to (network policy of the target)."""

    code = "address-refused"


class CircuitOpen(Refused):
    """The breaker of the target is open."""

    code, status, retryable = "circuit-open", 503, True


class VerifyError(RegistryError):
    """A received webhook is not authentic. One type for every malformed input."""

    code, status, exit_code = "not-authentic", 401, 4


class SettingError(RegistryError):
    """A setting has a value that cannot be used. Names the setting, the value and where it came from."""

    code, status, exit_code = "setting", 500, 2
