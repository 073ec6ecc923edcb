"""The verbs on keys, and the work that a rotation is.

A rotation is a row of the store that moves: announced (the new key stands in the store, wrapped by the old one, for the
other daemons, and in `keys/`), promoted (it seals), then place by place each value is sealed anew, batch by batch,
the progress in the transaction of the batch. Whatever ends it, it goes on from there, and at every moment each value
opens with a key that is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from universal_registry.kernel.errors import Conflict, Corrupt, KeyMismatch, NotFound, ReadOnlyStore
from universal_registry.kernel.settings import EncryptionSettings
from universal_registry.kernel.world import World
from universal_registry.log.audit import deed
from universal_registry.registry.key_state import FIRST, Facts, Files, KeyRow, Keys, KeyState, KeyStore, Rotation
from universal_registry.registry.keys import keep_files, unwrapped, wrapping
from universal_registry.registry.words import shown
from universal_registry.security.cipher import Sealer, open_fingerprint_key, seal_fingerprint_key
from universal_registry.security.keyring import Keyring, fingerprint, kid_of, new_key

ANNOUNCED = timedelta(seconds=5)
"""How long the other daemons of a database have to take a new key over before it seals: they look every second."""
LOST = timedelta(seconds=30)
"""After so long without a batch, another daemon takes a rotation over."""
BATCH = 200
LOOK_SECONDS = 1.0
IDLE_SECONDS = 60.0
_DAEMON = "daemon"


class KeyControl:
    """One per opened store.

    `drain`: returns when everything that was sealed before has been committed. `shared`: other daemons may write the
    same store. `background`: somebody calls `tick` all the time; else a verb does the whole work itself.
    """

    def __init__(
        self,
        *,
        store: KeyStore,
        facts: Facts,
        files: Files,
        sealer: Sealer,
        world: World,
        settings: EncryptionSettings,
        drain: Callable[[], Awaitable[None]],
        shared: bool = False,
        background: bool = False,
    ) -> None:
        self.settings = settings
        self._store = store
        self._facts = facts
        self._files = files
        self._sealer = sealer
        self._world = world
        self._drain = drain
        self._shared = shared
        self._background = background
        self._boot = world.new_id()
        self._wake: Callable[[], None] = lambda: None
        self._news: Callable[..., None] = lambda _event, **_fields: None

    def on_work(self, wake: Callable[[], None]) -> None:
        """Call `wake` when there is work for `tick`."""
        self._wake = wake

    def on_news(self, news: Callable[..., None]) -> None:
        """Call `news` with an event's name and fields when a key was announced, seals, or was retired."""
        self._news = news

    # --- looking -------------------------------------------------------------------------------------------------

    async def listing(self, *, count: bool = False) -> dict[str, Any]:
        """`keys` (kid, fingerprint, state, created_at, here, uses), the one that seals first; `rotation` under way or
        None; `due_at`, `read_only`, `warnings`. `count`: find out how many rows each key is in; else `uses` is None.
        """
        known, ring = await self._store.keys(), self._sealer.keyring
        kids = [ring.primary, *sorted((ring.keys.keys() | {row.kid for row in known.rows}) - {ring.primary})]
        uses = await self._store.uses(kids) if count else {}
        return {
            "keys": [self._view(kid, known.row(kid), uses.get(kid)) for kid in kids],
            "rotation": _rotation_view(known.rotation),
            "due_at": _text(self._due(known)),
            "read_only": self._files.read_only,
            "warnings": self._warnings(known),
        }

    def _view(self, kid: str, row: KeyRow | None, uses: int | None) -> dict[str, Any]:
        ring = self._sealer.keyring
        key = ring.keys.get(kid)
        seals = kid == ring.primary
        return {
            "kid": kid,
            "fingerprint": fingerprint(key) if key else row.fingerprint if row else "",
            "state": str(KeyState.PRIMARY if seals else row.state if row else KeyState.OLD),
            "created_at": self._created(row) if seals else row.created_at if row else None,
            "here": key is not None,
            "uses": uses,
        }

    def _created(self, row: KeyRow | None) -> str:
        """A key that has no row has sealed since the store was made."""
        if row is not None:
            return row.created_at
        made = self._facts.meta("created_at")
        return _text(_moment(made) if made else self._world.now())

    def _due(self, known: Keys) -> datetime:
        created = self._created(known.row(self._sealer.keyring.primary))
        return _moment(created) + timedelta(days=self.settings.key_rotation_interval_days)

    async def warnings(self) -> list[str]:
        """What somebody should know or do about the keys, for status."""
        return self._warnings(await self._store.keys())

    def _warnings(self, known: Keys) -> list[str]:
        found = []
        if not self.settings.seal_wire:
            found.append("nothing is sealed on the wire, as ENCRYPTION_CONFIG says; at rest all stays sealed")
        if self._due(known) > self._world.now() or not (self._files.read_only or not self.settings.rotation_enabled):
            return found
        todo = "ureg key rotate"
        if self._files.read_only:
            todo = "it is read from a file that is not ours to write, see docs/how-to/keys.md"
        days = (self._world.now() - _moment(self._created(known.row(self._sealer.keyring.primary)))).days
        return [*found, f"key {self._sealer.keyring.primary} has sealed for {days} days: {todo}"]

    def digest(self, name: str) -> str:
        """16 hex digits that stand for a name where it must not be read: the same for as long as the store lives."""
        return self._sealer.mac(f"name\n{name}".encode())[:16]

    # --- verbs ---------------------------------------------------------------------------------------------------

    async def rotate(self, actor: str, *, resume: bool = False) -> dict[str, Any]:
        """Begin a rotation (`resume`: never), or find the one under way; without a daemon, do what can be done of it
        now. As `listing`.

        Raises ReadOnlyStore when the key is read from a file that is not ours to write.
        """
        if self._files.read_only:
            raise ReadOnlyStore(
                "the key is read from a file that is not ours to write",
                hint="put the old key into config/keys/, and a new one where it is mounted from",
            )
        if (await self._store.keys()).rotation is None and not resume:
            await self._begin(new_key(self._world), actor)
        if self._background:
            self._wake()
            return await self.listing()
        while await self.tick() == 0.0:
            pass
        return await self.listing(count=True)

    async def _begin(self, key: bytes, actor: str) -> None:
        """Announce a key that shall seal. The store has it first, wrapped: what ends this leaves no key behind that
        nobody knows of, and the file can be made again."""
        ring, kid, now = self._sealer.keyring.having(key), kid_of(key), _text(self._world.now())
        row = KeyRow(
            kid=kid,
            fingerprint=fingerprint(key),
            state=KeyState.NEXT,
            created_at=now,
            wrapped=self._sealer.seal(key, wrapping(kid)),
        )
        rotation = Rotation(kid=kid, began_at=now, by=self._boot, at=now)
        if await self._store.begin(row, rotation, deed(self._world, actor, "key.rotate", f"key {kid}")):
            if not self._files.read_only:
                self._files.keep(key)
            self._sealer.use(ring)
            self._news("key announced", kid=kid, actor=actor)

    async def retire(self, kid: str, actor: str) -> dict[str, Any]:
        """Give up a key that opens nothing any more; its file is removed. `kid`, `uses` (0).

        Raises NotFound, Conflict (it seals, a rotation is under way, or it still opens something).
        """
        known, ring = await self._store.keys(), self._sealer.keyring
        row = known.row(kid)
        if kid not in ring.keys and row is None:
            raise NotFound(f"there is no key {shown(kid)}", hint="`ureg key ls` lists them")
        if kid == ring.primary:
            raise Conflict(f"key {kid} is the one that seals", hint="replace it first: ureg key rotate")
        if known.rotation is not None:
            raise Conflict("a rotation is under way", hint="`ureg key ls` says how far it is")
        await self._drain()
        row = row or self._row(kid, KeyState.OLD)
        gone = replace(row, state=KeyState.RETIRED, retired_at=_text(self._world.now()), wrapped=None)
        left = await self._store.retire(gone, deed(self._world, actor, "key.retire", f"key {kid}"))
        if left:
            hint = "ureg key rotate seals them anew; ureg key verify names those that do not open"
            raise Conflict(f"key {kid} is still needed by {left} rows", hint=hint, uses=left)
        self._forget(kid)
        self._news("key retired", kid=kid, actor=actor)
        return {"kid": kid, "uses": 0}

    def _row(self, kid: str, state: KeyState) -> KeyRow:
        """The row of a key that the store does not know yet."""
        created = self._created(None)
        return KeyRow(kid=kid, fingerprint=fingerprint(self._sealer.keyring.key(kid)), state=state, created_at=created)

    def _forget(self, kid: str) -> None:
        self._files.drop(kid)
        if kid in self._sealer.keyring.keys:
            self._sealer.use(self._sealer.keyring.without(kid))

    # --- work ----------------------------------------------------------------------------------------------------

    async def tick(self) -> float:
        """Do one piece of what is to be done. Seconds until the next; 0: at once.

        Takes over what other daemons did, begins the rotation that is due, moves the one that is under way.
        """
        known = await self._store.keys()
        if self._shared:
            self._adopt(known)
        if known.rotation is None:
            key = self._background and self._wanted(known)
            if not key:
                return self._pause()
            await self._begin(key, _DAEMON)
            return 0.0
        if not await self._claimed(known.rotation):
            return LOOK_SECONDS
        if not known.rotation.place:
            return await self._promote(known)
        return await self._reseal(known.rotation)

    def _pause(self) -> float:
        return LOOK_SECONDS if self._shared else IDLE_SECONDS

    def _wanted(self, known: Keys) -> bytes | None:
        """The key that shall seal from now on: a new one after its time, or the one that was mounted in its place."""
        if self._files.read_only:
            mounted = self._files.load()
            return (
                None
                if mounted.primary == self._sealer.keyring.primary or known.row(mounted.primary)
                else (mounted.key(mounted.primary))
            )
        due = self.settings.rotation_enabled and self._due(known) <= self._world.now()
        return new_key(self._world) if due else None

    async def _claimed(self, rotation: Rotation) -> bool:
        """Whether it is this process that works at the rotation. Alone it always is; else the other one must be lost.
        A time that lies ahead is that of a clock that was wrong."""
        now = self._world.now()
        alive = (_text(now - LOST), _text(now + LOST)) if self._shared else ("", "")
        return await self._store.claim(self._mine(rotation), alive)

    def _mine(self, rotation: Rotation) -> Rotation:
        return replace(rotation, by=self._boot, at=_text(self._world.now()))

    async def _promote(self, known: Keys) -> float:
        """The file first, then the store: until the store says so, the old key goes on sealing."""
        rotation = known.rotation
        assert rotation is not None
        early = _moment(rotation.began_at) + ANNOUNCED - self._world.now()
        if self._shared and timedelta(0) < early <= ANNOUNCED:
            return min(early.total_seconds(), LOOK_SECONDS)
        before = self._sealer.keyring
        ring = unwrapped(before, known.rows).sealing_with(rotation.kid)
        keep_files(self._files, ring)
        secret = open_fingerprint_key(ring, self._facts.meta("fingerprint_key") or "")
        row, old = known.row(rotation.kid), known.row(before.primary) or self._row(before.primary, KeyState.OLD)
        assert row is not None
        await self._store.promote(
            replace(self._mine(rotation), place=FIRST),
            (replace(row, state=KeyState.PRIMARY), replace(old, state=KeyState.OLD)),
            {"key_fingerprint": ring.fingerprint, "fingerprint_key": seal_fingerprint_key(ring, secret)},
            deed(self._world, _DAEMON, "key.seals", f"key {rotation.kid}", before=before.primary),
        )
        self._sealer.use(ring)
        self._news("key seals", kid=rotation.kid, before=before.primary)
        await self._drain()
        return 0.0

    async def _reseal(self, rotation: Rotation) -> float:
        if await self._store.reseal(self._mine(rotation), BATCH, self._anew) is not None:
            return 0.0
        known = await self._store.keys()
        left = await self._store.uses([row.kid for row in known.rows if row.state is KeyState.OLD])
        if sum(left.values()) and known.rotation is not None and known.rotation.changed:
            # Something was sealed with an old key meanwhile. A pass that changed nothing would not be better repeated.
            again = replace(self._mine(known.rotation), place=FIRST, after="", changed=0)
            await self._store.save(again)
            return 0.0
        count = known.rotation.resealed if known.rotation else 0
        told = deed(self._world, _DAEMON, "key.rotated", f"key {rotation.kid}", rows=count)
        await self._store.save(None, told)
        self._news("key rotation done", kid=rotation.kid, rows=count, left=sum(left.values()))
        return self._pause()

    def _anew(self, form: str, text: str) -> str:
        if form != "value":
            return self._sealer.document_anew(text, event=form == "event")
        try:
            return self._sealer.sealed_anew(text)
        except Corrupt:
            return text  # as `document_anew` leaves it

    def _adopt(self, known: Keys) -> None:
        """Take over what another daemon of this database did with the keys. Raises KeyMismatch when it did so long ago
        that the key is no longer handed over."""
        ring = unwrapped(self._sealer.keyring, known.rows)
        for row in known.rows:
            if row.state is KeyState.PRIMARY and row.kid != ring.primary:
                ring = self._found(row, ring).sealing_with(row.kid)
        if ring != self._sealer.keyring:
            keep_files(self._files, ring)
            self._sealer.use(ring)
        for row in known.rows:
            if row.state is KeyState.RETIRED and row.kid in ring.keys and row.kid != ring.primary:
                self._forget(row.kid)

    def _found(self, row: KeyRow, ring: Keyring) -> Keyring:
        """With the key of this row, which may have been put into a file since."""
        if row.kid not in ring.keys:
            ring = ring.having(*self._files.load().keys.values())
        if row.kid not in ring.keys:
            raise KeyMismatch(
                f"the store is sealed with key {row.kid} by now, which is not here",
                hint="bring it over: ureg key backup there, ureg key restore here",
                expected=row.fingerprint,
            )
        return ring


def _rotation_view(rotation: Rotation | None) -> dict[str, Any] | None:
    if rotation is None:
        return None
    return {
        "kid": rotation.kid,
        "began_at": rotation.began_at,
        "place": rotation.place or "announced",
        "resealed": rotation.resealed,
    }


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
