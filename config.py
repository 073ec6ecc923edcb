# ruff: noqa: UP031, UP036 - parsed by old Pythons too, to tell them so
"""The settings that are written out here, and the two managers that use them.

The two dicts are live: a daemon or command whose home is this folder reads them as literals (this file is not run for
that), above the defaults and below the environment and flags. `ureg config show --origin` says what is in force; after
an edit, send the daemon SIGHUP. docs/reference/settings.md has every key.

    from config import get_encryption_manager, get_retry_manager
"""

ENCRYPTION_CONFIG = {
    "enabled": True,
    "algorithm": "Fernet",
    "key_rotation_interval_days": 90,
    "encrypt_payloads": True,
    "key_path": "config/encryption.key",
    "rotation_enabled": True,
    "encrypt_logs": False,
    "encrypt_metrics": False,
}

RETRY_CONFIG = {
    "enabled": True,
    "max_retries": 5,
    "base_delay_seconds": 1,
    "max_delay_seconds": 300,
    "backoff_multiplier": 2.0,
    "jitter_enabled": True,
    "circuit_breaker_enabled": True,
    "circuit_breaker_threshold": 5,
    "circuit_breaker_timeout_seconds": 60,
    "jitter_factor": 0.1,
    "timeout_seconds": 30,
    "slow_phase": True,
}

# What follows is written so that old Pythons parse it too, and imports nothing until it is asked for: the wrong Python
# must end in one line that names the right one.

_OFFERED = ("get_encryption_manager", "get_retry_manager", "EncryptionManager", "RetryManager")
_NEEDED = ("apsw", "cryptography", "msgspec", "orjson")


def __getattr__(name):
    if name not in _OFFERED:
        raise AttributeError("module 'config' has no attribute %r" % name)
    return getattr(_facade(), name)


def _facade():
    import os
    import sys

    root = os.path.dirname(os.path.abspath(__file__))
    if sys.version_info < (3, 11):
        _unfit(root, "is Python %d.%d; 3.11 or newer is needed" % sys.version_info[:2])
    from importlib.util import find_spec

    lacking = [name for name in _NEEDED if find_spec(name) is None]
    if lacking:
        _unfit(root, "lacks " + ", ".join(lacking))
    if root not in sys.path:
        sys.path.insert(0, root)
    from universal_registry import facade

    return facade


def _unfit(root, why):
    import os
    import sys

    right = os.path.join(root, ".venv", "bin", "python")
    hint = "use " + right if os.path.exists(right) else "run ./ureg once, and then use " + right
    sys.stderr.write("config.py: %s %s; %s\n" % (sys.executable, why, hint))
    raise SystemExit(2)
