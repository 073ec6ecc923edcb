"""A target that keeps the history beyond its time is named, with the one command that lets it get on."""

from __future__ import annotations

from typing import Any

import pytest

from universal_registry.observe.kept_history import kept_warnings


def target(name: str, url: str | None = "https://x.example/", **lane: Any) -> dict[str, Any]:
    return {"target": f"system/{name}", "url": url, "lane": {"paused": False, "hold": "", **lane}}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (target("one", paused=True), "(it is paused): ureg target resume one"),
        (target("one", hold="disabled"), "(it is disabled): ureg target enable one"),
        (target("one", hold="gone"), "(it is gone): ureg target enable one"),
        (target("one", url=None), "(it has no address): ureg target add one URL"),
        (target("one"), "(it does not get on): ureg delivery ls --target one"),
        ({"target": "system/one", "url": "https://x.example/", "lane": None}, "(it does not get on): "),
    ],
)
def test_the_command_fits_what_keeps_it_back(found: dict[str, Any], said: str) -> None:
    (warning,) = kept_warnings({"target system/one": 44}, [found])
    assert warning.startswith(f"history: target one keeps 44 revisions beyond their time {said}")


def test_nobody_else_is_named() -> None:
    kept = {"target system/one": 1, "target system/gone": 5, "target system/two": 0}
    found = kept_warnings(
        kept, [target("two"), target("three"), target("a b", paused=True), target("one", paused=True)]
    )
    assert found == ["history: target one keeps 1 revision beyond their time (it is paused): ureg target resume one"]


def test_a_name_is_quoted_for_the_shell() -> None:
    (warning,) = kept_warnings({"target system/a b": 2}, [target("a b", paused=True)])
    assert warning.endswith("ureg target resume 'a b'")
