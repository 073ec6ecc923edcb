"""For programs of one's own: the registry, and the two managers that `config.py` of a checkout offers, too.

    from universal_registry.facade import get_encryption_manager, get_registry, get_retry_manager

They use the home, the key and the settings that a command run here would have.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson
from msgspec.structs import replace

from universal_registry.environment import load_settings
from universal_registry.kernel.errors import CircuitOpen, Corrupt, Invalid, Unreachable
from universal_registry.kernel.settings import Places, RetrySettings, Settings
from universal_registry.kernel.world import SystemWorld, World
from universal_registry.propagation.lanes.backoff import delay
from universal_registry.propagation.lanes.breaker import begin_probe, failed, open_time, probe_due, reset, succeeded
from universal_registry.propagation.lanes.lane import Breaker, Lane, Position
from universal_registry.storage.keyfile import key_files
from universal_registry.storage.sealed_with import sealed_with

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

    from universal_registry.client.nexus import Studio
    from universal_registry.client.registry import Registry


class EncryptionManager:
    """Plain Fernet tokens under the key of a home: any Fernet that has the key file opens them.

    They are bound to no place and counted nowhere: before a key that was rotated away is retired, what is kept outside
    of the registry is to be encrypted anew. The key file is made when there is none and nothing was sealed here yet.
    """

    def __init__(self, settings: Settings, world: World) -> None:
        self._settings = settings
        self._world = world
        self._fernet: MultiFernet | None = None

    def encrypt(self, data: str | bytes) -> str:
        """The token. Raises KeyMismatch when the key is missing or unsafe."""
        return self._ciphers().encrypt(data.encode() if isinstance(data, str) else data).decode()

    def decrypt(self, token: str | bytes) -> str:
        """The text that was encrypted, with this key or an older one. Raises Corrupt, KeyMismatch."""
        from cryptography.fernet import InvalidToken

        try:
            return self._ciphers().decrypt(token).decode()
        except UnicodeDecodeError:
            raise Corrupt("what the token holds is no text", hint="open it with cryptography.fernet itself") from None
        except (InvalidToken, TypeError):
            raise Corrupt("the token does not open", hint="it was changed, or its key is not here") from None

    def encrypt_dict(self, data: dict[str, Any]) -> str:
        """The token of a dict, as JSON. Raises Invalid for what JSON does not have."""
        if not isinstance(data, dict):
            raise Invalid(f"encrypt_dict takes a dict, not {type(data).__name__}", hint="encrypt takes text and bytes")
        try:
            return self.encrypt(orjson.dumps(data))
        except TypeError as error:
            raise Invalid(f"the dict cannot be written as JSON: {error}", hint="give values that JSON has") from None

    def decrypt_dict(self, token: str | bytes) -> dict[str, Any]:
        """The dict that was encrypted. Raises Corrupt."""
        try:
            found = orjson.loads(self.decrypt(token))
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise Corrupt("the token holds no dict", hint="open it with decrypt")
        return found

    def _ciphers(self) -> MultiFernet:
        """As the key files are now: a rotation takes effect at once."""
        from cryptography.fernet import Fernet, MultiFernet

        may_create = self._settings.database is None and sealed_with(Places(self._settings.home).registry_db) is None
        ring = key_files(self._settings, self._world).load(may_create=may_create)
        keys = [ring.key(ring.primary), *(key for kid, key in ring.keys.items() if kid != ring.primary)]
        return MultiFernet([Fernet(key) for key in keys])


class RetryManager:
    """Repeats what fails, as RETRY_CONFIG says: waits that grow, and a breaker of its own, shared by all its callers.

    The breaker of a target is the daemon's: `ureg target breaker NAME`. `sleep`: waits so many seconds.
    """

    def __init__(
        self, settings: RetrySettings, world: World, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.settings = settings
        self._world = world
        self._sleep = sleep
        self._lane = Lane(
            lane_id="", target_uid="", target_namespace="", target_name="", transport="", incarnation="",
            position=Position(0, 0),
        )  # fmt: skip

    def should_retry(self, attempt: int) -> bool:
        """Whether another attempt follows the failed one of this number (from 0)."""
        return self.settings.enabled and attempt < self.settings.max_retries

    def get_backoff_delay(self, attempt: int) -> float:
        """Seconds to wait after the failed attempt of this number (from 0)."""
        return delay(attempt, self.settings, self._world.chance()).total_seconds()

    def record_success(self) -> None:
        """Count a success: the failures before it are forgotten, and an open breaker closes."""
        if self._lane.breaker is Breaker.OPEN:
            self._lane = begin_probe(self._lane)
        self._lane = succeeded(self._lane, probe=True, most=1)

    def record_failure(self) -> None:
        """Count a failure: the one that reaches the threshold opens the breaker."""
        now = self._world.now()
        if probe_due(self._lane, now):
            self._lane = begin_probe(self._lane)
        self._lane = failed(self._lane, now, self.settings, probe=self._lane.breaker is Breaker.HALF_OPEN)

    def is_circuit_open(self) -> bool:
        """Whether nothing may be tried now. After its time an open breaker lets one attempt through."""
        return self._lane.breaker is not Breaker.CLOSED and not probe_due(self._lane, self._world.now())

    @property
    def circuit_open(self) -> bool:
        """As `is_circuit_open`. Set to False, it closes this process's breaker; to True, it opens it."""
        return self.is_circuit_open()

    @circuit_open.setter
    def circuit_open(self, value: bool) -> None:
        if value:
            until = self._world.now() + open_time(1, self.settings)
            self._lane = replace(self._lane, breaker=Breaker.OPEN, trips=max(self._lane.trips, 1), open_until=until)
            return
        self._lane = reset(self._lane)
        sys.stdout.write("the breaker of this process is closed; a daemon's is: ureg target breaker NAME --reset\n")

    @property
    def failure_count(self) -> int:
        """Failures since the last success."""
        return self._lane.failures

    async def execute_with_retry(self, func: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Call `func(*args)` until it returns: its result. After the last attempt its error is raised.

        Coroutine functions run on the loop, all others in a thread, each attempt for at most `timeout_seconds` (a
        thread cannot be stopped then: its result is thrown away). Raises CircuitOpen at once while the breaker is open;
        a call that was under way as it opened makes the attempts that it has.
        """
        self._admit()
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(self.settings.timeout_seconds):
                    result = await _called(func, args, named)
            except Exception:  # whatever the caller's function raises counts, and is the caller's in the end
                self.record_failure()
                if not self.should_retry(attempt):
                    raise
            else:
                self.record_success()
                return result
            await self._sleep(self.get_backoff_delay(attempt))
            attempt += 1

    def _admit(self) -> None:
        now = self._world.now()
        if self.is_circuit_open():
            until = self._lane.open_until
            when = f" until {until:%Y-%m-%dT%H:%M:%SZ}" if until else ""
            raise CircuitOpen(
                f"the breaker is open{when} after {self._lane.failures} failures in a row",
                hint="wait, or close it: get_retry_manager().circuit_open = False",
            )
        if self._lane.breaker is not Breaker.CLOSED:  # this is the one attempt that is let through
            self._lane = begin_probe(self._lane, now + open_time(1, self.settings))


async def _called(func: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    if inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(getattr(func, "__call__", None)):  # noqa: B004
        return await func(*args, **named)
    result = await asyncio.to_thread(func, *args, **named)
    return await result if inspect.isawaitable(result) else result


# --- the ones of this process ---------------------------------------------------------------------------------------


@cache
def get_encryption_manager() -> EncryptionManager:
    """The one of this process. Raises SettingError."""
    return EncryptionManager(_settings(), SystemWorld())


@cache
def get_retry_manager() -> RetryManager:
    """The one of this process. Raises SettingError."""
    return RetryManager(_settings().retry, SystemWorld())


def get_registry(*, namespace: str = "default") -> Registry:
    """The registry of this process's home, by its daemon. Raises SettingError, and Unreachable when none is running."""
    from universal_registry.client.registry import Registry

    return Registry.local(Places(_settings().home), namespace=namespace)


@cache
def _settings() -> Settings:
    return load_settings()


# --- studios (docs/reference/studio.md) -----------------------------------------------------------------------------


def nexus_sync(
    *push: dict[str, Any], cursor: str = "", full: bool = False, wait: int = 0, studio: str = "nexus"
) -> dict[str, Any]:
    """One exchange with the daemon that runs here: `changes`, the answers to `push`, and a `cursor`, which acknowledges
    the changes when it is given to the next. Raises Unreachable (no daemon), CursorMismatch."""
    with _studio(studio) as found:
        return found.sync(*push, cursor=cursor, full=full, wait=wait)


async def nexus_stream(studio: str = "nexus") -> AsyncGenerator[dict[str, Any], None]:
    """Each change for the studio as it happens, over one WebSocket. To ask for the next acknowledges those before."""
    from universal_registry.client.http import daemon_addresses
    from universal_registry.client.nexus import follow
    from universal_registry.client.stream import StreamClient

    places = Places(_settings().home)
    async with (
        StreamClient(lambda: daemon_addresses(places)[:1]) as client,
        aclosing(follow(client, studio)) as changes,
    ):
        async for change in changes:
            yield change


def registry_sync_with_nexus(
    entry: str, component: str, direction: str = "bidirectional", studio: str = "nexus"
) -> dict[str, Any]:
    """Bind a record (`[kind/]name`) to a component (for multicast, to several with commas), and exchange what is due.
    As `nexus_sync`; `binding` is what was bound."""
    with _studio(studio) as found:
        names = component.split(",") if direction == "multicast" else [component]
        bound = found.bind(entry, *names, direction=direction)
        return {"binding": bound, **found.sync()}


def registry_enable_nexus_streaming(
    entry: str, component: str, protocol: str = "websocket", studio: str = "nexus"
) -> dict[str, Any]:
    """Bind them, if they are not, note the protocol, and make a stream of the component's name."""
    with _studio(studio) as found:
        return found.enable_streaming(entry, component, protocol)


def registry_nexus_sync_history(
    entry: str | None = None, limit: int = 100, studio: str = "nexus"
) -> list[dict[str, Any]]:
    """What was exchanged with the studio, newest first; of one record, if it is named."""
    with _studio(studio) as found:
        return found.history(entry, limit)


@contextmanager
def _studio(name: str) -> Iterator[Studio]:
    from universal_registry.client.http import Client, find_daemon
    from universal_registry.client.nexus import Studio as Opened

    settings = _settings()
    address = find_daemon(Places(settings.home))
    if address is None:
        raise Unreachable(f"no daemon runs in {settings.home}", hint="`ureg up` starts one")
    token = None if address.startswith("/") else Places(settings.home).admin_token.read_text(encoding="ascii").strip()
    with Client(address, token, 90.0, 120.0) as client:
        yield Opened(client, name)


def __getattr__(name: str) -> Any:
    """ENCRYPTION_CONFIG and RETRY_CONFIG: the values in force, read when they are asked for."""
    if name == "ENCRYPTION_CONFIG":
        return asdict(_settings().encryption)
    if name == "RETRY_CONFIG":
        return asdict(_settings().retry)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
