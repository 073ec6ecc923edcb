"""Names, selectors and addresses of what the propagation commands declare."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from universal_registry.kernel.errors import AddressRefused, Forbidden, Invalid
from universal_registry.kernel.ids import NAME_BYTES, check_name
from universal_registry.propagation.routing.route import exact_names
from universal_registry.propagation.verbs.documents import (
    fitted_name,
    is_url,
    name_for_url,
    network_for,
    route_name,
    selector_text,
)
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.selector import parse_selector
from universal_registry.security.addresses import Policy, check_url

CATALOGUE = load_catalogue()


def legal(text: str) -> bool:
    try:
        return check_name(text) == text
    except Invalid:
        return False


names = st.one_of(
    st.text(min_size=1, max_size=60).filter(legal),
    st.text(alphabet="\\,*?=! a[]/", min_size=1, max_size=12).filter(legal),
)


@given(names)
def test_the_selector_of_a_name_selects_that_name_alone(name: str) -> None:
    for terms in (selector_text(name), selector_text(name, kind="alias", namespace="default")):
        selector = parse_selector(terms, CATALOGUE)
        assert exact_names(selector) == (name,)
    assert (selector.kinds, selector.namespaces) == (("alias",), ("default",))


@given(names, names)
def test_two_names_never_share_a_selector(one: str, other: str) -> None:
    assert (selector_text(one) == selector_text(other)) == (one == other)


@given(st.text(max_size=400), st.text(max_size=400))
def test_route_names_fit_and_tell_apart(source: str, target: str) -> None:
    name = route_name("unidirectional", source, target)
    assert len(name.encode(errors="surrogatepass")) <= NAME_BYTES
    assert name == route_name("unidirectional", source, target)
    assert route_name("unidirectional", source + "x", target) != name


def test_a_long_name_is_cut_between_characters() -> None:
    long = "🦄" * 100
    name = fitted_name(long)
    assert name.startswith("🦄🦄")
    assert 240 <= len(name.encode()) <= NAME_BYTES
    assert fitted_name(long + "🦄") != name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://127.0.0.1:9000", "127.0.0.1:9000"),
        ("http://127.0.0.1:9000/", "127.0.0.1:9000"),
        ("https://Hooks.Example/a/b/", "hooks.example:443/a/b"),
        ("http://hooks.example/a", "hooks.example:80/a"),
        ("http://[::1]:9000/x", "[::1]:9000/x"),
    ],
)
def test_the_name_of_a_url(url: str, name: str) -> None:
    assert is_url(url)
    assert name_for_url(url) == name


def test_a_query_is_told_apart_but_never_shown() -> None:
    one, two = name_for_url("https://h.example/x?token=s3cret"), name_for_url("https://h.example/x?token=other")
    assert one != two
    assert "s3cret" not in one
    assert one.startswith("h.example:443/x?")


def test_words_that_are_no_url() -> None:
    assert not any(map(is_url, ("remote.service", "httpd", "http:x", "mine", "ftp://x")))


def policy(url: str, wanted: str | None = None, *, admin: bool = True) -> tuple[Policy, str]:
    return network_for(check_url(url, insecure_http=True), wanted, admin=admin)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:9000", Policy.LOOPBACK),
        ("http://localhost:9000", Policy.LOOPBACK),
        ("http://[::1]:9000", Policy.LOOPBACK),
        ("http://10.1.2.3", Policy.PRIVATE),
        ("http://[fd12::1]", Policy.PRIVATE),
    ],
)
def test_the_local_administrator_is_granted_literal_addresses_and_told_so(url: str, expected: Policy) -> None:
    assert policy(url) == (expected, f"network: {expected.value}, as you are the local administrator")
    assert policy(url, expected.value) == (expected, "")
    with pytest.raises(AddressRefused):
        policy(url, admin=False)
    with pytest.raises(AddressRefused):
        policy(url, "public")
    with pytest.raises(Forbidden):
        policy(url, expected.value, admin=False)


@pytest.mark.parametrize("admin", [True, False])
def test_public_addresses_and_names_are_public(admin: bool) -> None:
    for url in ("https://hooks.example", "https://8.8.8.8/x", "https://localhost.example"):
        assert policy(url, admin=admin) == (Policy.PUBLIC, "")


def test_metadata_is_never_granted() -> None:
    for wanted in (None, "private", "loopback"):
        with pytest.raises(AddressRefused):
            policy("http://169.254.169.254/latest", wanted)


def test_an_unknown_network_names_the_known_ones() -> None:
    with pytest.raises(Invalid, match="public, private, loopback"):
        policy("https://hooks.example", "lan")
