"""The registry from a Python program, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from universal_registry.client.registry import Registry
from universal_registry.kernel.errors import NotFound, Unreachable
from universal_registry.kernel.settings import Places

HOSTILE = ["..", "a b", "/usr/bin", "$(id)", "-rf", "naïve \U0001f980", "\u202eabc", "it's"]


async def within(serve: Any, work: Callable[[Registry], Any]) -> Any:
    _, addresses = await serve()

    def blocking() -> Any:
        with Registry.at(str(addresses.socket)) as registry:
            return work(registry)

    return await asyncio.to_thread(blocking)


async def test_a_record_is_made_changed_listed_and_removed(serve: Any) -> None:
    def work(registry: Registry) -> None:
        made = registry.put("alias", "gs", {"command": "git status"}, labels={"shell": "zsh"})
        assert (made["effect"], made["record"]["labels"]) == ("created", {"shell": "zsh"})
        changed = registry.set("alias", "gs", command="git status -sb")
        assert (changed["effect"], registry.get("alias", "gs")["spec"]["command"]) == ("updated", "git status -sb")
        assert registry.get("alias", "gs", rev=made["revision"])["spec"]["command"] == "git status"
        assert registry.merge("alias", "gs", {"labels": {"shell": None}})["record"].get("labels", {}) == {}
        assert [each["op"] for each in registry.history("alias", "gs")] == ["put", "put", "put"]
        registry.delete("alias", "gs")
        with pytest.raises(NotFound):
            registry.get("alias", "gs")
        assert registry.delete("alias", "gs", missing_ok=True)["effect"] == "unchanged"

    await within(serve, work)


async def test_hostile_names_stay_what_they_are(serve: Any) -> None:
    def work(registry: Registry) -> None:
        for name in HOSTILE:
            registry.put("package", name, {"version": "1"})
            assert registry.get("package", name)["name"] == name
        assert {each["name"] for each in registry.records("package")} == set(HOSTILE)

    await within(serve, work)


async def test_lists_go_through_all_pages_and_selectors_select(serve: Any) -> None:
    def work(registry: Registry) -> None:
        names = [f"a{number:04}" for number in range(1203)]
        operations = [{"op": "put", "kind": "alias", "name": name, "spec": {"command": "true"}} for name in names]
        assert registry.batch(operations, message="many")["revision"] == 1
        assert [each["name"] for each in registry.records("alias")] == names
        assert [each["name"] for each in registry.records("alias", "name=a000?")] == names[:10]

    await within(serve, work)


async def test_a_propagation_is_a_session_that_can_be_read(serve: Any) -> None:
    def work(registry: Registry) -> None:
        registry.put("service", "shop", {"host": "h1"})
        begun = registry.propagate("unidirectional", "shop", ["elsewhere"])
        assert registry.session(begun["session"])["mode"] == "unidirectional"
        assert registry.where("shop")[0]["name"] == "shop"
        assert registry.status()["revision"] >= 1

    await within(serve, work)


def test_without_a_daemon_it_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(Unreachable) as caught:
        Registry.local(Places(tmp_path))
    assert caught.value.hint == "ureg up"
