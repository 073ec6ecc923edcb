"""Answers as they are kept: compressed, and sealed, since that to a new target shows its signing secret."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from universal_registry.registry.once import Kept, Once
from universal_registry.registry.operation import Asked, Committed
from universal_registry.security.cipher import Sealer


class AnswerKeeper:
    """Makes and opens the answers of requests that bear an idempotency key."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def asked(self, actor: str, once: Once, result: Callable[[Committed], Any]) -> Asked:
        """What the writer needs to keep the answer. `result`: what the verb returns, from what was committed."""

        def answer(committed: Committed) -> str:
            return self._sealer.seal(zlib.compress(once.render(result(committed)), 1), answer_context(actor, once.key))

        return Asked(key=once.key, actor=actor, fingerprint=once.fingerprint, answer=answer)

    def open(self, kept: Kept) -> bytes:
        """The answer. Raises Corrupt."""
        return zlib.decompress(self._sealer.open(kept.answer, answer_context(kept.actor, kept.key)))


def answer_context(actor: str, key: str) -> str:
    """Where the answer to a request of this actor with this key belongs."""
    return f"idempotency\n{actor}\n{key}\nanswer"
