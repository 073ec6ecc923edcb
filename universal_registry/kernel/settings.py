"""Every setting, in one place: its name, its default, its bounds and what it does.

Values come from layers (defaults, `config.py`, environment, flags) that `environment.py` reads; nothing else does.
A setting `NAME` is read from the environment variable `REGISTRY_NAME`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple


def _setting(
    default: object, doc: str, *, low: float | None = None, high: float | None = None, words: tuple[str, ...] = ()
) -> Any:
    return field(default=default, metadata={"doc": doc, "low": low, "high": high, "words": words})


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
    jitter: str = _setting(
        "additive",
        "additive: a wait is lengthened by a random share; full: a wait of the fast phase is any part of itself.",
        words=("additive", "full"),
    )
    slow_phase: bool = _setting(True, "After the fast phase go on for about 75 hours; off: a dead letter at once.")
    max_age_seconds: float = _setting(
        604800.0, "A delivery past its fast phase is given up at this age.", low=1, high=315360000
    )
    budget: float = _setting(
        10.0,
        "Failed retries that a target may cost in a row; one that succeeds gives back 1, any other success 0.1.",
        low=1,
        high=1000000,
    )
    budget_refill_seconds: float = _setting(
        10.0, "With nothing left of the budget, a target still gets one retry in this time.", low=0.001, high=86400
    )
    circuit_breaker_enabled: bool = _setting(True, "Rest a target after repeated failures.")
    circuit_breaker_threshold: int = _setting(5, "Consecutive failures that open the breaker.", low=1, high=10000)
    circuit_breaker_timeout_seconds: float = _setting(
        60.0, "The first open time; it doubles with each failed probe, up to 15 minutes.", low=0.001, high=86400
    )
    auto_disable_days: float = _setting(
        5.0, "Days without a success after which a target may be disabled; 0: never.", low=0, high=3650
    )
    auto_disable_dead: int = _setting(
        20, "Deliveries given up since the last success, without which no target is disabled.", low=1, high=1000000
    )
    timeout_seconds: float = _setting(
        30.0, "Deadline of one attempt, connecting and answer included.", low=0.01, high=3600
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionSettings:
    """What is sealed where, with which key, and how long a key is used. At rest, secrets and payloads always are."""

    enabled: bool = _setting(True, "Seal what is sent; off: nothing is sealed on the wire, all stays sealed at rest.")
    algorithm: str = _setting("Fernet", "How values are sealed at rest. There is one: Fernet.")
    key_rotation_interval_days: int = _setting(90, "Days after which the key is replaced.", low=1, high=36500)
    rotation_enabled: bool = _setting(True, "Replace the key by itself when it is that old; off: only warn.")
    encrypt_payloads: bool = _setting(True, "As `enabled`, for the bodies of deliveries.")
    encrypt_logs: bool = _setting(
        False,
        "Seal the fields of each log line; `ureg key open` shows them. Time, level, event and part stay readable.",
    )
    encrypt_metrics: bool = _setting(False, "Show digests instead of the names of targets in the labels of /metrics.")
    key_path: str = _setting("config/encryption.key", "The key file, from the home if relative.")
    key_file: str = _setting(
        "", "Read the key from this file instead, and never write it: a mounted secret or a credential."
    )

    @property
    def seal_wire(self) -> bool:
        """Whether deliveries may be sealed at all; a target's own word decides beyond that."""
        return self.enabled and self.encrypt_payloads


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySettings:
    """How long the change log keeps what later changes made out of date. The newest state of all always stays."""

    compact: bool = _setting(True, "Drop what is past its time, once an hour; off: only `ureg db compact` does.")
    value_days: float = _setting(
        30.0, "Days for which the values that records had are kept, and events; 0: age says nothing.", low=0, high=36500
    )
    value_revisions: int = _setting(
        0, "Of so many of the newest revisions they are kept at most; 0: of any number.", low=0, high=10**9
    )
    line_days: float = _setting(
        90.0,
        "Days for which the log says who changed what, and goes on from any cursor; 0: age says nothing.",
        low=0,
        high=36500,
    )
    line_revisions: int = _setting(
        0, "Of so many of the newest revisions it does at most; 0: of any number.", low=0, high=10**9
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
    tls_cert: Path | None = _setting(None, "Certificate chain (PEM) of the TCP listener; then it speaks TLS alone.")
    tls_key: Path | None = _setting(None, "The key of that certificate (PEM, not encrypted).")
    tls_client_ca: Path | None = _setting(
        None, "Authorities (PEM) of client certificates; then every client on TCP needs one, and its token."
    )
    stream_origins: str = _setting("", "Sites whose pages may open a stream, as https://a.example,https://b.example.")
    max_streams: int = _setting(10000, "Streams that may be open at once.", low=1, high=1000000)
    log_level: str = _setting("info", "debug, info, warning or error.")
    health_interval: float = _setting(60.0, "Seconds between health checks.", low=0.01, high=86400)
    metrics_interval: float = _setting(3.0, "Seconds between writes of metrics/registry.metrics.", low=0.01, high=86400)
    max_in_flight: int = _setting(10, "Deliveries under way at once, over all targets.", low=1, high=10000)
    max_in_flight_per_target: int = _setting(2, "Deliveries under way at once to one target.", low=1, high=10000)
    rows_per_lane: int = _setting(
        10000, "Waiting deliveries kept as rows for one target; beyond it they wait in the log.", low=1, high=10000000
    )
    lock_wait: float = _setting(5.0, "Seconds that a command without a daemon waits for the store.", low=0, high=3600)
    backup_folder: Path | None = _setting(
        None, "Folder of the backups that the daemon makes by the clock; without one it makes none."
    )
    backup_interval_hours: float = _setting(24.0, "Hours between them.", low=0.001, high=8760)
    backup_keep: int = _setting(7, "So many of them are kept: the newest.", low=1, high=10000)
    drain_timeout: float = _setting(
        10.0, "Seconds that a stopping daemon gives to deliveries under way.", low=0, high=3600
    )
    retry: RetrySettings = field(default_factory=RetrySettings)
    encryption: EncryptionSettings = field(default_factory=EncryptionSettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    database: PostgresSettings | None = None  # None: SQLite, in the home

    @property
    def key_file(self) -> Path:
        """Where the key that seals is read from."""
        return self.home / (self.encryption.key_file or self.encryption.key_path)


GROUPS: tuple[tuple[str, str, type], ...] = (
    ("retry.", "RETRY_CONFIG", RetrySettings),
    ("encryption.", "ENCRYPTION_CONFIG", EncryptionSettings),
    ("history.", "HISTORY_CONFIG", HistorySettings),
)
"""Settings that belong together: how their names begin, and their dict in `config.py`."""


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
