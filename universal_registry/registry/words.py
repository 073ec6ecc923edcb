"""Words that the catalogue and its readers share: the envelope's names, and how mistyped words are met."""

from __future__ import annotations

import zlib
from functools import lru_cache

ENVELOPE = (
    "uid",
    "namespace",
    "name",
    "classification",
    "title",
    "description",
    "labels",
    "annotations",
    "spec",
    "managers",
    "generation",
    "revision",
    "created_revision",
    "created_at",
    "updated_at",
    "created_by",
    "updated_by",
    "lifecycle",
    "health",
    "expires_at",
    "fingerprint",
)
"""The columns of every kind table, in order. No field may bear one of these names."""

COMPILED_FORMAT = 1
"""Raise it when the same YAML compiles to other JSON, so that older JSON is seen to be out of date."""


def squash(word: str) -> str:
    """A word without case, spaces, hyphens and underscores: how classifications and older names are compared."""
    return word.casefold().replace(" ", "").replace("-", "").replace("_", "")


def digest_of_source(source: bytes) -> str:
    """What `catalogue.json` records of the YAML it was made from. Not a guard against tampering."""
    return f"{COMPILED_FORMAT}-{zlib.crc32(source):08x}-{len(source)}"


def near(word: str, words: tuple[str, ...]) -> list[str]:
    """At most three of `words` that a mistyped `word` may have meant, the nearest first. Long words have none."""
    return list(_near(word, words)) if len(word) <= 64 else []


@lru_cache(maxsize=1024)
def _near(word: str, words: tuple[str, ...]) -> tuple[str, ...]:
    # Imported here: it is needed for mistakes only.
    from difflib import get_close_matches

    plain = {each.casefold(): each for each in words}
    found = get_close_matches(word.casefold(), list(plain), n=3, cutoff=0.7)
    return tuple(plain[each] for each in found)


def shown(value: object, width: int = 60) -> str:
    """A value for a message: `repr`, shortened to `width` characters."""
    text = repr(value[: width + 1] if isinstance(value, str) else value)
    return text if len(text) <= width else text[: width - 3] + "..."


def shell_word(text: str) -> str:
    """The text as one word of a shell command, for commands that messages show."""
    plain = all(char.isalnum() or char in "@%+=:,./-_" for char in text) and text.isascii() and not text.startswith("-")
    return text if plain else "'" + text.replace("'", "'\"'\"'") + "'"
