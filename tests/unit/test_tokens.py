from __future__ import annotations

import hashlib

import pytest

from universal_registry.kernel.errors import Unauthenticated
from universal_registry.kernel.world import SystemWorld
from universal_registry.security.tokens import hash_token, new_token, parse_bearer, token_matches

TOKEN = "ur_" + "A" * 43


def test_new_tokens() -> None:
    tokens = {new_token(SystemWorld()) for _ in range(500)}
    assert len(tokens) == 500
    for token in tokens:
        assert token.startswith("ur_")
        assert len(token) == 46
        assert parse_bearer(f"Bearer {token}") == token


def test_only_the_hash_is_kept() -> None:
    assert hash_token(TOKEN) == hashlib.sha256(TOKEN.encode()).hexdigest()
    assert token_matches(TOKEN, hash_token(TOKEN))
    assert not token_matches(TOKEN[:-1] + "E", hash_token(TOKEN))
    for stored in ("", "é", "\ud800", hash_token(TOKEN)[:-1], hash_token(TOKEN).upper()):
        assert not token_matches(TOKEN, stored)
    assert not token_matches("\ud800", hash_token(TOKEN))


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN}", f" Bearer {TOKEN} "])
def test_bearer_is_read(header: str) -> None:
    assert parse_bearer(header) == TOKEN


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer{TOKEN}",
        f"Bearer {TOKEN} x",
        f"Bearer {TOKEN},Bearer {TOKEN}",
        f"Bearer {TOKEN}\n",
        f"Bearer {TOKEN}A",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN[:-1]}B",  # stray bits: not a text that new_token makes
        f"Bearer ur-{TOKEN[3:]}",
        f"Bearer {TOKEN[:-1]}é",
        "Bearer hunter2",
        "Bearer " + "x" * 1_000_000,
    ],
)
def test_all_else_is_unauthenticated_and_not_shown(header: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        parse_bearer(header)
    assert "Authorization: Bearer ur_" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("header", [None, "", "Basic x", "Bearer nonsense"])
def test_the_hint_names_what_there_is(header: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        parse_bearer(header)
    assert "config/admin.token" in str(caught.value)
    assert "ureg " not in str(caught.value), "no command that does not exist"
