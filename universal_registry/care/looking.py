"""Sees what there is to be seen of a home from outside, changing nothing: facts for `ureg doctor`."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path

from universal_registry.care.checks.finding import Facts
from universal_registry.care.checks.home import PRIVATE
from universal_registry.care.kept import newest
from universal_registry.care.marks import marks
from universal_registry.kernel.errors import Corrupt, KeyMismatch, NewerStore, RegistryError
from universal_registry.kernel.settings import Places, Settings
from universal_registry.kernel.world import World
from universal_registry.security.tokens import is_token
from universal_registry.storage.home import is_initialised, none_here
from universal_registry.storage.keyfile import key_files
from universal_registry.storage.lock import read_holder
from universal_registry.storage.pending import integrity, pending_migrations
from universal_registry.storage.replacing import half_moved, is_pending, moved_aside
from universal_registry.storage.sealed_with import sealed_with

_DAEMON = "daemon"
_LOCAL = ("127.", "localhost", "[::1]", "::1")


def damage(settings: Settings, *, most_bytes: int) -> str:
    """What is wrong with the files of the stores, in one line, or nothing; files of more bytes are not looked through,
    and those that cannot be read say so elsewhere."""
    places = Places(settings.home)
    for path in (places.registry_db, places.propagation_db) if settings.database is None else ():
        try:
            wrong = integrity(path) if path.stat().st_size <= most_bytes else []
        except (RegistryError, OSError) as error:
            wrong = [error.message] if isinstance(error, Corrupt) else []
        if wrong:
            return f"{path.name} is damaged: {wrong[0]}"
    return ""


def look_at(settings: Settings, world: World, *, answers: bool) -> Facts:
    """All that needs no opened registry. `answers`: whether a daemon does."""
    places, here = Places(settings.home), settings.database is None
    facts = Facts(now=world.now(), home=str(settings.home), engine="sqlite" if here else "postgresql", answers=answers)
    facts.initialised = is_initialised(places, settings.key_file, files=here)
    _files(facts, places)
    _process(facts, places, settings)
    if here and facts.initialised:
        _stores(facts, places)
    _key(facts, settings, world, places if here else None)
    facts.marks = marks(settings.home)
    look_at_backups(facts, settings, world)
    return facts


def _files(facts: Facts, places: Places) -> None:
    home = places.home
    if home.exists():
        facts.home_writable = os.access(home, os.W_OK | os.X_OK)
        facts.free_bytes = shutil.disk_usage(home).free
    names = [*PRIVATE, ".universal_registry.db", ".registry_propagation.db", "logs/registry.log"]
    names += [f"{name}-wal" for name in (".universal_registry.db", ".registry_propagation.db")]
    for name in names:
        try:
            found = (home / name).stat()
        except OSError:
            continue
        facts.modes[name], facts.sizes[name] = stat.S_IMODE(found.st_mode), found.st_size
    there = [bool(facts.sizes.get(path.name)) for path in (places.registry_db, places.propagation_db)]
    pending, half, moved = is_pending(places), half_moved(places), moved_aside(places)
    if facts.engine == "sqlite" and not facts.initialised and (any(there) or pending or half or moved):
        facts.half = none_here(places).message
        if half or moved:
            facts.half_command = "ureg db to-postgres" if half else "REGISTRY_DB_HOST=HOST ureg up"
        else:
            facts.half_command = "ureg up" if pending or there[0] else "ureg restore FILE"
    try:
        facts.token_is_one = is_token(places.admin_token.read_text("ascii", "replace").strip())
    except OSError:
        facts.token_is_one = None
    try:
        facts.metrics_age = facts.now.timestamp() - places.metrics.stat().st_mtime
    except OSError:
        facts.metrics_age = None


def _process(facts: Facts, places: Places, settings: Settings) -> None:
    holder = read_holder(places.lock)
    if holder is not None:
        facts.holder = f"process {holder.pid} ({holder.role})"
        facts.holder_is_daemon = holder.role == _DAEMON
        facts.frozen = holder.pid if _is_frozen(holder.pid) else 0
    facts.stale_address = places.address.exists() and holder is None
    host, _, port = settings.listen.rpartition(":")
    if holder is None and port not in ("", "0") and _taken(host.strip("[]"), int(port)):
        facts.port_taken = settings.listen
    facts.open_to_others = bool(settings.listen) and not host.startswith(_LOCAL) and settings.tls_cert is None
    if settings.tls_cert is not None:
        _certificate(facts, settings.tls_cert)


def _is_frozen(pid: int) -> bool:
    """Whether it was told to stand still (SIGSTOP). Seen on Linux alone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def _taken(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError:
            return True
    return False


def _certificate(facts: Facts, path: Path) -> None:
    from cryptography.x509 import load_pem_x509_certificate

    try:
        facts.tls_until = load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        facts.tls_until = facts.now  # one that cannot be read is none


def _stores(facts: Facts, places: Places) -> None:
    for store, path in (("registry", places.registry_db), ("propagation", places.propagation_db)):
        try:
            if wrong := integrity(path):
                facts.broken[store] = wrong[0]
        except Corrupt as error:
            facts.broken[store] = error.message
        except RegistryError as error:  # a full disk says nothing of what is stored
            facts.unread = error.message
    try:
        facts.pending = len(pending_migrations(places)) if not facts.broken and not facts.unread else 0
    except NewerStore as error:
        facts.newer = error.message


def _key(facts: Facts, settings: Settings, world: World, places: Places | None) -> None:
    try:
        expected = sealed_with(places.registry_db) if places is not None else None
        if expected is None and not settings.key_file.exists():
            return
        files = key_files(settings, world)
        ring = files.load(expected=expected)
        if expected is not None and ring.named(expected) is None:
            facts.key_trouble = f"the store was sealed with key {expected}, and the key here is {ring.fingerprint}"
        elif expected is not None and ring.fingerprint != expected and not files.read_only:
            facts.key_replaced = ring.primary
    except KeyMismatch as error:
        facts.key_trouble = error.message
        facts.key_command = error.data.get("command", facts.key_command)
    except RegistryError as error:
        facts.unread = facts.unread or error.message


def look_at_backups(facts: Facts, settings: Settings, world: World, history: str | None = None) -> None:
    """Those made by the clock: of one history, or of whoever has some in that folder."""
    if settings.backup_folder is None:
        return
    facts.backup_folder, facts.backup_interval = str(settings.backup_folder), settings.backup_interval_hours * 3600
    try:
        kept = newest(settings.backup_folder, world.now(), history)
    except RegistryError:
        kept = None
    facts.backup_age = (world.now() - kept.at).total_seconds() if kept is not None else None
