"""Opening a store with its keys: the one that it was sealed with, or a refusal that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from universal_registry.kernel.errors import KeyMismatch
from universal_registry.kernel.world import World
from universal_registry.registry.key_state import Facts, Files, KeyRow, KeyStore
from universal_registry.security.cipher import (
    Box,
    Sealer,
    new_fingerprint_key,
    open_fingerprint_key,
    seal_fingerprint_key,
)
from universal_registry.security.keyring import Keyring


async def open_keys(
    files: Files, facts: Facts, keys: KeyStore, world: World, *, read_only: bool, on_stranger: Callable[[str], None]
) -> Sealer:
    """The sealer of a store. A new store gets a key file, or takes over the one that is there; never a sealed one.

    The store says which key seals; a home that has it only among its older ones, or that another daemon has left behind
    in a rotation, is put right. `on_stranger` is told the id of a key that stood in the key file then, and that this
    store has never known: somebody may have put it there. Raises KeyMismatch when the key is missing or foreign.
    """
    expected = facts.meta("key_fingerprint")
    ring = files.load(may_create=expected is None and not read_only, expected=expected)
    if expected is None:
        sealed = seal_fingerprint_key(ring, new_fingerprint_key(world))
        await facts.claim_meta({"key_fingerprint": ring.fingerprint, "fingerprint_key": sealed})
        # Another daemon of the same database may have been first, with its own key.
        expected = facts.meta("key_fingerprint") or ""
    rows, stood_there = (await keys.keys()).rows, ring.primary
    ring = _sealing_as(expected, unwrapped(ring, rows))
    sealer = Sealer(ring, open_fingerprint_key(ring, facts.meta("fingerprint_key") or ""))
    if not read_only:
        keep_files(files, ring)
        if not files.read_only and stood_there not in {ring.primary, *(row.kid for row in rows)}:
            on_stranger(stood_there)
    sealer.reread = lambda: _sealing_as_before(files.load(), sealer.keyring)
    return sealer


def _sealing_as(expected: str, ring: Keyring) -> Keyring:
    kid = ring.named(expected)
    if kid is None:
        raise KeyMismatch(
            f"the store was sealed with key {expected}, but the key file holds key {ring.fingerprint}",
            hint="restore config/encryption.key from your backup, or: ureg key restore FILE",
            expected=expected,
            actual=ring.fingerprint,
        )
    return ring.sealing_with(kid)


def _sealing_as_before(loaded: Keyring, before: Keyring) -> Keyring:
    """What a command that only reads finds when a daemon has rotated meanwhile. It seals nothing."""
    return loaded.having(*before.keys.values()).sealing_with(before.primary)


def unwrapped(ring: Keyring, known: Sequence[KeyRow]) -> Keyring:
    """With the keys that the store holds wrapped by one that is here; a wrapped key may open the next."""
    box = Box(ring)
    for row in sorted(known, key=lambda row: row.created_at):
        if row.wrapped is not None and row.kid not in box.keyring.keys and row.wrapped[:8] in box.keyring.keys:
            box.use(box.keyring.having(box.open(row.wrapped, wrapping(row.kid))))
    return box.keyring


def keep_files(files: Files, ring: Keyring) -> None:
    """Every key of the ring stands in a file, the primary in the key file."""
    loaded = files.load()
    for kid in ring.keys.keys() - loaded.keys.keys():
        files.keep(ring.key(kid))
    if loaded.primary != ring.primary and not files.read_only:
        files.make_primary(ring.key(ring.primary))
        files.drop(ring.primary)  # its copy in `keys/`: it stands in the key file now


def wrapping(kid: str) -> str:
    """The context of a wrapped key."""
    return f"keys\n{kid}\nkey"
