"""Every setting, in one place: its name, its default, its bounds and what it does.

Values come from layers (defaults, `config.py`, environment, flags) that `environment.py` reads; nothing else does.
A setting `NAME` is read from the environment variable `REGISTRY_NAME`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple


def _setting(default: object, doc: str, *, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"doc": doc, "low": low, "high": high})


SLOW_PHASE = tuple(
    timedelta(minutes=minutes) for minutes in (5, 30, 2 * 60, 5 * 60, 10 * 60, 14 * 60, 20 * 60, 24 * 60)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """How a failed delivery is repeated, and when a target is given a rest."""

    enabled: bool = _setting(True, "Repeat failed deliveries; off: one attempt, then a dead letter.")
    max_retries: int = _setting(5, "Retries of the fast phase after the first attempt.", low=0, high=1000)
    base_delay_seconds: float = _setting(1.0, "Wait before the first retry.", low=0.001, high=86400)
    max_delay_seconds: float = _setting(
        300.0, "No wait of the fast phase is longer, jitter included.", low=0.001, high=604800
    )
    backoff_multiplier: float = _setting(
        2.0, "Each wait of the fast phase is this times the one before.", low=1, high=100
    )
    jitter_enabled: bool = _setting(True, "Lengthen each wait by a random share; off: exact waits.")
    jitter_factor: float = _setting(0.1, "The largest share by which a wait is lengthened.", low=0, high=1)
    slow_phase: bool = _setting(True, "After the fast phase go on for about 75 hours; off: a dead letter at once.")
    circuit_breaker_enabled: bool = _setting(True, "Rest a target after repeated failures.")
    circuit_breaker_threshold: int = _setting(5, "Consecutive failures that open the breaker.", low=1, high=10000)
    circuit_breaker_timeout_seconds: float = _setting(
        60.0, "The first open time; it doubles with each failed probe, to 15 times.", low=0.001, high=86400
    )
    timeout_seconds: float = _setting(
        30.0, "Deadline of one attempt, connecting and answer included.", low=0.01, high=3600
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSettings:
    """A PostgreSQL database that holds the records. `host` may be the folder of its Unix socket."""

    host: str
    name: str = "universal_registry"
    user: str = "registry"
    password: str | None = field(default=None, repr=False)
    port: int = 5432


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one process."""

    home: Path
    listen: str = _setting(
        "127.0.0.1:8080", "HOST:PORT of the HTTP API; port 0 takes a free one; empty: only the socket."
    )
    socket: Path | None = _setting(None, "Unix socket of the HTTP API; by default run/ureg.sock in the home.")
    log_level: str = _setting("info", "debug, info, warning or error.")
    health_interval: float = _setting(60.0, "Seconds between health checks.", low=0.01, high=86400)
    metrics_interval: float = _setting(3.0, "Seconds between writes of metrics/registry.metrics.", low=0.01, high=86400)
    max_in_flight: int = _setting(10, "Deliveries under way at once, over all targets.", low=1, high=10000)
    max_in_flight_per_target: int = _setting(2, "Deliveries under way at once to one target.", low=1, high=10000)
    rows_per_lane: int = _setting(
        10000, "Waiting deliveries kept as rows for one target; beyond it they wait in the log.", low=1, high=10000000
    )
    lock_wait: float = _setting(5.0, "Seconds that a command without a daemon waits for the store.", low=0, high=3600)
    drain_timeout: float = _setting(
        10.0, "Seconds that a stopping daemon gives to deliveries under way.", low=0, high=3600
    )
    retry: RetrySettings = field(default_factory=RetrySettings)
    database: PostgresSettings | None = None  # None: SQLite, in the home


class Places(NamedTuple):
    """Where things are below a home."""

    home: Path

    @property
    def registry_db(self) -> Path:
        return self.home / ".universal_registry.db"

    @property
    def propagation_db(self) -> Path:
        return self.home / ".registry_propagation.db"

    @property
    def lock(self) -> Path:
        return self.home / "run" / "ureg.lock"

    @property
    def address(self) -> Path:
        """Holds the path of the daemon's socket, and its TCP address in a second line."""
        return self.home / "run" / "address"

    @property
    def socket(self) -> Path:
        return self.home / "run" / "ureg.sock"

    @property
    def key(self) -> Path:
        return self.home / "config" / "encryption.key"

    @property
    def admin_token(self) -> Path:
        return self.home / "config" / "admin.token"

    @property
    def log(self) -> Path:
        return self.home / "logs" / "registry.log"

    @property
    def metrics(self) -> Path:
        return self.home / "metrics" / "registry.metrics"


def describe(settings_type: type) -> dict[str, str]:
    """Name and meaning of each setting of a settings class, for the reference and `config show`."""
    return {item.name: item.metadata["doc"] for item in fields(settings_type) if "doc" in item.metadata}
