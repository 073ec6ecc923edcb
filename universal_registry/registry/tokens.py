"""Access tokens with scopes of their own, for those who must not hold the administrator's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import msgspec

from universal_registry.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.kernel.world import World
from universal_registry.log.audit import Deed, deed
from universal_registry.registry.operation import Operation
from universal_registry.registry.words import near, shown
from universal_registry.security.tokens import hash_token, new_token

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_RESERVED = "admin"


class TokenScope(StrEnum):
    """What a token may do. Each but `admin` reads; `admin` does everything."""

    READ = "read"
    WRITE = "write"
    PROPAGATE = "propagate"
    ADMIN = "admin"


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it is kept: never itself. Times are RFC 3339, UTC; `expires_at` None: it does not expire."""

    name: str
    hash: str
    scopes: tuple[str, ...]
    created_at: str
    created_by: str
    expires_at: str | None = None


class Holder(Protocol):
    """Whoever has scopes."""

    @property
    def name(self) -> str: ...

    def may(self, scope: str) -> bool: ...


def check_may_write(who: Holder, operations: Iterable[Operation]) -> None:
    """Targets and routes stand in namespace `system`: whoever writes there decides what is sent where. Raises Forbidden
    unless he has the scope for that."""
    if not who.may(TokenScope.PROPAGATE) and any(each.key.namespace == SYSTEM_NAMESPACE for each in operations):
        hint = f"it needs the scope {TokenScope.PROPAGATE.value!r}"
        raise Forbidden(f"{who.name} may not write in namespace {SYSTEM_NAMESPACE}", hint=hint, actor=who.name)


class TokenStore(Protocol):
    """Where tokens are kept; each change with the deed that tells of it, in one durable commit."""

    async def tokens(self) -> Sequence[Token]:
        """All, by name."""
        ...

    async def add_token(self, token: Token, told: Deed) -> None:
        """Raises Conflict when the name is taken."""
        ...

    async def remove_token(self, name: str, told: Deed) -> bool:
        """Whether there was one."""
        ...


class Tokens:
    """The tokens in force. It holds them in memory, so that a request needs no look into the store."""

    def __init__(self, store: TokenStore, world: World) -> None:
        self._store = store
        self._world = world
        self._known: tuple[Token, ...] = ()
        self._in_force: dict[str, Token] = {}
        self.version = 0
        """Rises with every change: whoever remembers what a token may do asks again then."""

    async def load(self) -> None:
        """Take over what the store has now. To be called every second, for what expires and what other daemons do."""
        self._known = tuple(await self._store.tokens())
        in_force = {token.hash: token for token in self._known if not self.is_over(token)}
        if in_force != self._in_force:
            self._in_force = in_force
            self.version += 1

    def find(self, token: str) -> Token | None:
        """The token, if it is in force. The look-up is by a hash, so its time tells nothing of those that there are."""
        found = self._in_force.get(hash_token(token))
        return None if found is None or self.is_over(found) else found

    def is_over(self, token: Token) -> bool:
        """Whether it has expired."""
        return token.expires_at is not None and datetime.fromisoformat(token.expires_at) <= self._world.now()

    async def add(
        self, name: str, scopes: Sequence[str], *, actor: str, expires: timedelta | None = None
    ) -> tuple[Token, str]:
        """A new token, and what it is: shown once and never stored. Raises Invalid, Conflict."""
        if not _NAME.fullmatch(name) or name == _RESERVED:
            hint = "1 to 63 letters, digits and . _ -, a letter or digit first; `admin` is that of config/admin.token"
            raise Invalid(f"the token name {shown(name)} cannot be used", hint=hint)
        secret, now = new_token(self._world), self._world.now()
        token = Token(
            name=name,
            hash=hash_token(secret),
            scopes=_scopes(scopes),
            created_at=_text(now),
            created_by=actor,
            expires_at=None if expires is None else _text(now + expires),
        )
        details = {"scopes": list(token.scopes), "expires_at": token.expires_at}
        try:
            await self._store.add_token(token, deed(self._world, actor, "token.add", f"token {name}", **details))
        except Conflict as error:
            if type(error) is not Conflict:
                raise
            raise Conflict(f"there is a token {name} already", hint=f"ureg token revoke {name}") from None
        await self.load()
        return token, secret

    async def revoke(self, name: str, *, actor: str) -> None:
        """It opens nothing from now on. Raises NotFound with what may have been meant."""
        told = deed(self._world, actor, "token.revoke", f"token {name:.80}")
        if not await self._store.remove_token(name, told):
            guesses = near(name, tuple(token.name for token in self._known))
            hint = f"did you mean {guesses[0]!r}?" if guesses else "see: ureg token ls"
            raise NotFound(f"there is no token {shown(name)}", hint=hint, did_you_mean=guesses)
        await self.load()

    async def all(self) -> list[Token]:
        """All, by name, those that have expired too."""
        await self.load()
        return list(self._known)


def _scopes(words: Sequence[str]) -> tuple[str, ...]:
    known = tuple(str(each) for each in TokenScope)
    for word in words:
        if word not in known:
            guesses = near(word, known)
            raise Invalid(
                f"there is no scope {shown(word)}",
                hint=f"did you mean {guesses[0]!r}?" if guesses else f"one of {', '.join(known)}",
            )
    if not words:
        raise Invalid("a token needs a scope", hint=f"one or more of {', '.join(known)}")
    return tuple(word for word in known if word in words)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
