"""Requests, targets and headers; the route table's matching."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from universal_registry.api.http import Peer, PeerKind, Request, check_headers, request_from, split_target
from universal_registry.api.routes import ROUTES, match
from universal_registry.kernel.errors import Malformed, MethodNotAllowed, NotFound, RegistryError, UsageError

PEER = Peer(kind=PeerKind.INPROC)


def request(target: str, **headers: str) -> Request:
    return request_from("GET", target, list(headers.items()), b"", PEER)


def test_targets():
    assert split_target("/a%2Fb?x=1&x=2&y=%20+") == ("/a%2Fb", (("x", "1"), ("x", "2"), ("y", "  ")))
    assert split_target("/a?") == ("/a", ())
    assert split_target("/a?x") == ("/a", (("x", ""),))
    assert split_target("http://host:1/a/b?c=d") == ("/a/b", (("c", "d"),))
    assert split_target("/a?b=c?d=e") == ("/a", (("b", "c?d=e"),))
    for bad in ("*", "a/b", "ftp://x/y", "host:443", "/a?x=%ff", "/a?x=%00"):
        with pytest.raises(Malformed):
            split_target(bad)
    with pytest.raises(UsageError):
        split_target("/?" + "a=1&" * 201)


def test_parameters():
    found = request("/?n=5&f=true&g=0&h&twice=1&twice=2")
    assert found.integer("n", 1, 1, 5) == 5
    assert found.integer("none", 7, 1, 5) == 7
    assert (found.flag("f"), found.flag("g"), found.flag("h"), found.flag("none")) == (True, False, True, False)
    assert found.values("twice") == ["1", "2"]
    for bad in ("/?n=6", "/?n=-1", "/?n=5.0", "/?n=٣", "/?n=1&n=1", "/?n=99999999999"):
        with pytest.raises(UsageError):
            request(bad).integer("n", 1, 1, 5)


def test_headers():
    assert check_headers([("A", "1"), ("a", "2"), ("Host", "h")]) == {"a": "1, 2", "host": "h"}
    for single in ("Host", "Authorization", "Content-Type", "content-length"):
        with pytest.raises(Malformed):
            check_headers([(single, "1"), (single.upper(), "2")])
    found = request("/", Accept="text/html, Text/Tab-Separated-Values;q=0.9", **{"Content-Type": "A/B; c=d"})
    assert found.accepts("text/tab-separated-values")
    assert not found.accepts("application/json")
    assert found.content_type() == "a/b"


def test_each_route_is_found_by_its_own_pattern():
    seen = set()
    for route in ROUTES:
        assert (route.method, route.pattern) not in seen
        seen.add((route.method, route.pattern))
        path = "/".join("x" if segment.startswith("{") else segment for segment in route.pattern.split("/"))
        assert match(route.method, path).route is route


def test_a_name_is_never_taken_for_the_control_plane():
    assert match("GET", "/v1/default/targets/kinds").route.pattern == "/v1/{namespace}/{plural}/{name}"
    assert match("GET", "/v1/-/kinds").route.pattern == "/v1/-/kinds"
    assert match("HEAD", "/v1/-/kinds").route.method == "GET"
    for path in ("/v1/-/nothing", "/v1/-/aliases/a", "/v1/%2D/aliases/a", "/v1//aliases", "/v1/default//a"):
        with pytest.raises(NotFound):
            match("GET", path)
    with pytest.raises(MethodNotAllowed) as caught:
        match("BREW", "/v1/-/targets")
    assert caught.value.data["allow"] == "GET, HEAD, POST"


def test_a_near_path_is_offered():
    with pytest.raises(NotFound) as caught:
        match("GET", "/v1/-/target")
    assert caught.value.hint == "did you mean /v1/-/targets?"


@given(st.text(max_size=80), st.sampled_from(["GET", "PUT", "", "get", "\x00"]))
def test_any_target_gives_a_route_or_an_error_of_ours(text, method):
    for target in (text, "/" + text, "/v1/" + text, "/v1/default/aliases/" + text):
        try:
            found = request_from(method, target, [], b"", PEER)
            match(found.method, found.path)
        except RegistryError:
            continue


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60))
def test_a_quoted_name_is_found_again(name):
    from universal_registry.client.http import quote, record_path

    path, query = split_target(record_path("default", "aliases", name))
    found = match("GET", path).params["name"]
    assert (dict(query)["name"] if found == "-" else found) == name
    assert quote(name).isascii()
