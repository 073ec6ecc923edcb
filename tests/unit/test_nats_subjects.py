"""Subjects of NATS messages: no name can widen one, end one or leave its place."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from universal_registry.kernel.errors import AddressRefused, Invalid
from universal_registry.propagation.messages.nats_message import check_prefix, headers_of, subject_of, token
from universal_registry.security.addresses import check_url, take_credential


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("gs", "gs"),
        ("a b", "a%20b"),
        ("a.b", "a%2Eb"),
        ("*", "%2A"),
        (">", "%3E"),
        ("$SYS", "%24SYS"),
        ("a/b", "a%2Fb"),
        ("a\r\nPUB x 0\r\n", "a%0D%0APUB%20x%200%0D%0A"),
        ("über", "%C3%BCber"),
        ("100%", "100%25"),
        ("~", "%7E"),
    ],
)
def test_a_name_is_one_token(name: str, written: str) -> None:
    assert subject_of("p.q", f"alias/default/{name}") == f"p.q.alias.default.{written}"


@given(st.text(min_size=1), st.text(min_size=1))
def test_tokens_are_plain_and_differ_as_names_do(one: str, other: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_%-]+", token(one))
    assert (token(one) == token(other)) == (one == other)


@pytest.mark.parametrize("path", ["", "/", "/a.", "/.a", "/a..b", "/*", "/a.>", "/$SYS.x", "/a b", "/a/b", "/a?x=1"])
def test_a_prefix_that_cannot_be_published_to_is_refused(path: str) -> None:
    with pytest.raises(Invalid, match="published to"):
        check_prefix(path)


def test_headers_hold_no_line_break() -> None:
    headers = dict(headers_of("msg_1", [("subject", 'alias/default/ü "x"\r\ny'), ("id", "1.2")]))
    assert headers == {
        "Nats-Msg-Id": "msg_1",
        "ce-subject": "alias/default/%C3%BC%20%22x%22%0D%0Ay",
        "ce-id": "1.2",
    }


def test_what_stands_before_the_host_is_taken_out() -> None:
    assert take_credential("nats://u:p%40s@h:4222/x") == ("nats://h:4222/x", "u:p@s")
    assert take_credential("tls://token@h/x") == ("tls://h/x", "token")
    assert take_credential("https://u:p@h/x") == ("https://u:p@h/x", None)
    with pytest.raises(Invalid, match="user name"):
        check_url("nats://u:p@127.0.0.1/x")


def test_cleartext_stays_on_this_machine() -> None:
    assert check_url("nats://127.0.0.1/x").port == 4222
    assert not check_url("tls://bus.example/x").loopback_only
    with pytest.raises(AddressRefused, match="cleartext") as refused:
        check_url("nats://bus.example/x")
    assert "use tls" in str(refused.value.hint)
