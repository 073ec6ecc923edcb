"""The keys over the API: their ids, never themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from universal_registry.api.inprocess import InProcess
from universal_registry.app import embedded, init
from universal_registry.kernel.errors import Conflict, Invalid, NotFound, RegistryError
from universal_registry.kernel.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path / "home")
    init(made)
    return made


@pytest.fixture
def caller(settings: Settings) -> Iterator[InProcess]:
    opened = embedded(settings)
    opened.request("PUT", "/v1/default/secrets/token", json={"spec": {"value": "hunter2"}})
    yield opened
    opened.close()


def keys(caller: InProcess, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = caller.request("GET", "/v1/-/keys", query=query).json()["keys"]
    return found


def test_a_rotation_from_begin_to_end(caller: InProcess) -> None:
    (before,) = keys(caller, count=True)
    assert (before["state"], before["here"], before["uses"]) == ("primary", True, 3)
    answer = caller.request("POST", "/v1/-/keys/rotate").json()
    after, old = answer["keys"]
    assert answer["rotation"] is None
    assert (old["kid"], old["state"], old["uses"]) == (before["kid"], "old", 0)
    assert after["uses"] == 3
    retired = caller.request("POST", "/v1/-/keys/retire", json={"kid": old["kid"]}).json()
    assert retired == {"kid": old["kid"], "uses": 0}
    again = caller.request("POST", "/v1/-/keys/rotate", query={"resume": True}).json()
    assert again["keys"][0]["kid"] == after["kid"], "nothing was under way"


def test_no_key_is_ever_in_an_answer(caller: InProcess, settings: Settings) -> None:
    first = settings.key_file.read_bytes().strip()
    bodies = [
        caller.request("GET", "/v1/-/keys").body,
        caller.request("POST", "/v1/-/keys/rotate").body,
        caller.request("GET", "/v1/-/keys", query={"count": True}).body,
        caller.request("GET", "/v1/-/status").body,
        caller.request("GET", "/v1/-/audit").body,
    ]
    for key in (first, settings.key_file.read_bytes().strip()):
        assert not [body for body in bodies if key in body]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"kid": "PRIMARY"}, Conflict),
        ({"kid": "00000000"}, NotFound),
        ({"kid": "../../etc/passwd"}, NotFound),
        ({"kid": 5}, Invalid),
        ({}, Invalid),
        ({"kid": "00000000", "force": True}, Invalid),
    ],
)
def test_what_cannot_be_retired_is_refused(caller: InProcess, body: dict[str, Any], error: type[RegistryError]) -> None:
    (key,) = keys(caller)
    if body.get("kid") == "PRIMARY":
        body = {"kid": key["kid"]}
    with pytest.raises(error):
        caller.request("POST", "/v1/-/keys/retire", json=body)
    assert [each["kid"] for each in keys(caller)] == [key["kid"]]
