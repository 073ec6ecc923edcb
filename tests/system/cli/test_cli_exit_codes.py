"""Each exit code of docs/reference/cli.md occurs, and the same error has the same one whichever command meets it."""

from __future__ import annotations

import contextvars
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from compacting import compact
from watching import CATALOGUE, WORLD

from tests.system.cli.conftest import Ureg
from tests.system.cli.conftest import _ureg as new_ureg
from universal_registry.__main__ import main
from universal_registry.storage.registry_sqlite import SqliteRegistry

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
DOCUMENTED = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def sending(online: Any, listen: Callable[..., Any]) -> Any:
    """An alias, a target that answers, and one that does not."""
    online("set", "alias", "gs", "command=git status")
    online("target", "add", "good", listen().url, "--select", "kind=host", "--seal", "never")
    online("target", "add", "bad", NOWHERE, "--select", "kind=host", "--seal", "never")
    return online


def _nothing(ureg: Any) -> None:
    """Nothing has to be there first."""


def _an_alias(ureg: Any) -> None:
    ureg("set", "alias", "gs", "command=git status")


def _an_environment(ureg: Any) -> None:
    ureg("create", "environment", "lab", "variables:={}")


def _a_context(ureg: Any) -> None:
    address = (ureg.home / "run" / "address").read_text().splitlines()[1]
    ureg("context", "add", "stranger", f"http://{address}")


def _a_pause(ureg: Any) -> None:
    ureg("target", "pause", "bad")


class Case:
    """`words` exit with `code` on the registry of that fixture, once `first` was done."""

    def __init__(
        self, code: int, fixture: str, *words: str, first: Callable[[Any], None] = _nothing, **environ: str
    ) -> None:
        self.code, self.fixture, self.words, self.first, self.environ = code, fixture, words, first, environ


SEND = ("multicast", "--source", "alias/gs", "--targets")
CASES = {
    "done": Case(0, "offline", "status"),
    "looked at, and not all is well": Case(0, "sending", "where", "gs", first=_a_pause),
    "nothing to show": Case(0, "offline", "delivery", "ls"),
    "differences": Case(1, "offline", "diff", "-f", "-"),
    "an option that is not there": Case(2, "offline", "get", "alias", "--nonsense"),
    "no such record": Case(3, "offline", "get", "alias", "nobody"),
    "no token": Case(4, "online", "get", "alias", "--context", "stranger", first=_a_context),
    "it is there already": Case(5, "offline", "create", "alias", "gs", "command=x", first=_an_alias),
    "not a number": Case(6, "offline", "set", "service", "pay", "port=many"),
    "no daemon": Case(7, "offline", "get", "alias", "-w"),
    "one of two has it": Case(8, "sending", *SEND, "good,bad", "--wait=1s"),
    "paused": Case(9, "sending", *SEND, "bad", "--wait=30s", first=_a_pause),
    "warnings": Case(10, "online", "doctor"),
    "the time is over": Case(124, "sending", *SEND, "bad", "--wait=300ms"),
    "a folder is no command": Case(126, "offline", "run", "--env", "lab", "--", "/", first=_an_environment),
    "no such command": Case(127, "offline", "run", "--env", "lab", "--", "no-such", first=_an_environment),
    "interrupted": Case(130, "offline", "edit", "alias", "gs", first=_an_alias, EDITOR='sh -c "kill -INT $PPID"'),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_code_occurs(case: Case, request: pytest.FixtureRequest) -> None:
    ureg = request.getfixturevalue(case.fixture)
    case.first(ureg)
    document = b'{"kind": "alias", "name": "gs", "spec": {"command": "git status"}}'
    done = ureg.run(case.words, document, case.environ)
    assert done.returncode == case.code, done
    assert "Traceback" not in done.stderr


def test_all_of_them_do() -> None:
    assert {case.code for case in CASES.values()} == DOCUMENTED


# --- the same error, whoever meets it -------------------------------------------------------------------------------

PATCH = '[{"op": "remove", "path": "/spec/x"}]'
SAME: dict[str, tuple[int, list[tuple[str, ...]]]] = {
    "no such record": (3, [
        ("get", "alias", "nobody"), ("get", "alias/nobody"), ("get", "alias", "nobody", "--rev", "1"),
        ("edit", "alias", "nobody"), ("delete", "alias", "nobody"), ("delete", "alias", "nobody", "--dry-run"),
        ("undelete", "alias", "nobody"), ("patch", "alias", "nobody", PATCH), ("history", "alias", "nobody"),
        ("rollback", "alias", "nobody", "--to", "1"), ("graph", "alias", "nobody"), ("impact", "alias", "nobody"),
        ("where", "nobody"), ("target", "get", "nobody"), ("session", "get", "nobody"), ("delivery", "why", "nobody"),
        ("consumer", "get", "nobody"), ("nexus", "unbind", "nobody"), ("context", "use", "nobody"),
        ("run", "--env", "nobody", "--", "true"), ("promote", "nobody", "nowhere"),
        ("token", "revoke", "nobody"), ("peer", "rm", "nobody"), ("follow", "nobody"),
        ("delivery", "ls", "--session", "nobody"), ("delivery", "ls", "--target", "nobody"),
        ("delivery", "ls", "--name", "nobody"), ("target", "breaker", "nobody"),
        ("route", "explain", "alias", "nobody"),
        ("session", "cancel", "nobody"), ("delivery", "attempts", "nobody"), ("key", "retire", "nobody"),
    ]),
    "no such kind": (3, [
        ("get", "nokind"), ("get", "nokind", "x"), ("export", "--kind", "nokind"), ("nexus", "bind", "nokind/x", "c"),
        ("set", "nokind", "x", "a=b"),
        ("set", "nokind", "x", "--json", "{}"), ("create", "nokind", "x"), ("edit", "nokind", "x"),
        ("delete", "nokind", "x"), ("delete", "nokind", "x", "--dry-run"), ("undelete", "nokind", "x"),
        ("patch", "nokind", "x", PATCH), ("history", "nokind", "x"), ("rollback", "nokind", "x", "--to", "1"),
        ("explain", "nokind"), ("search", "x", "--kind", "nokind"), ("graph", "nokind", "x"), ("impact", "nokind", "x"),
    ]),
    "a kind that a document names, and is none": (6, [("apply", "-f", "-"), ("import", "-"), ("diff", "-f", "-")]),
    "a revision that is to come": (3, [
        ("get", "alias", "gs", "--rev", "99"), ("rollback", "alias", "gs", "--to", "99"), ("undo", "99"),
    ]),
    "no such file": (3, [
        ("apply", "-f", "nofile"), ("diff", "-f", "nofile"), ("import", "nofile"),
        ("set", "alias", "x", "-f", "nofile"),
        ("set", "alias", "x", "command=@nofile"), ("set", "alias", "x", "--json", "@nofile"),
        ("patch", "alias", "gs", "@nofile"), ("key", "restore", "nofile"), ("key", "open", "nofile"),
        ("webhook", "verify", "nofile", "--secret", "x"), ("nexus", "sync", "--push", "nofile"), ("drill", "nofile"),
        ("stream", "publish", "nofile"), ("restore", "nofile"), ("follow", NOWHERE, "--token-file", "nofile"),
        ("audit", "verify", "--anchor", "nofile"),
        ("context", "add", "x", "https://a.example", "--token-file", "nofile"),
    ]),
    "no daemon": (7, [
        ("get", "alias", "-w"), ("get", "-w", "--consumer", "x"), ("stream", "tail"), ("stream", "receive", "x"),
        ("stream", "publish", "-"), ("nexus", "stream"), ("health",),
    ]),
    "a registry elsewhere, for what needs one of this machine": (2, [
        ("db", "check", "--context", "far"), ("key", "verify", "--context", "far"), ("up", "--context", "far"),
        ("run", "--env", "x", "--context", "far", "--", "true"), ("backup", "--context", "far", "file"),
        ("doctor", "--context", "far"), ("config", "show", "--context", "far"), ("init", "--context", "far"),
    ]),
    "nobody at the address": (7, [
        ("get", "alias", "--context", "far"), ("set", "alias", "x", "command=x", "--context", "far"),
        ("export", "--context", "far"), ("status", "--context", "far"), ("undo", "1", "--context", "far"),
    ]),
    "a name that cannot be": (6, [
        ("get", "alias", "a\nb"), ("set", "alias", "a\nb", "command=x"), ("create", "alias", "a\nb", "command=x"),
        ("delete", "alias", "a\nb"), ("history", "alias", "a\nb"), ("undelete", "alias", "a\nb"),
        ("patch", "alias", "a\nb", PATCH), ("edit", "alias", "a\nb"), ("rollback", "alias", "a\nb", "--to", "1"),
        ("where", "a\nb"), ("delivery", "ls", "--name", "a\nb"),
    ]),
    "a namespace that cannot be": (6, [
        ("get", "alias", "-n", "A_B"), ("get", "alias", "gs", "-n", "A_B"),
        ("set", "alias", "x", "command=x", "-n", "A_B"),
        ("delete", "alias", "gs", "-n", "A_B"), ("history", "alias", "gs", "-n", "A_B"), ("promote", "A_B", "default"),
        ("promote", "default", "A_B"), ("run", "--env", "A_B", "--", "true"), ("search", "x", "-n", "A_B"),
        ("where", "gs", "-n", "A_B"), ("delivery", "ls", "--name", "gs", "-n", "A_B"),
    ]),
    "an expression that is none": (2, [
        ("get", "alias", "--query", "["), ("status", "--query", "["), ("where", "gs", "--query", "["),
    ]),
}  # fmt: skip


def _each() -> Iterator[Any]:
    for what, (code, commands) in SAME.items():
        for words in commands:
            yield pytest.param(code, words, id=f"{what}: {' '.join(words)!a}")


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Ureg:
    """One registry for all of them: none may change anything."""
    ureg = new_ureg(tmp_path_factory.mktemp("standing"))
    ureg("init")
    ureg("set", "alias", "gs", "command=git status")
    ureg("context", "add", "far", NOWHERE)
    return ureg


@pytest.mark.parametrize(("code", "words"), list(_each()))
def test_the_same_error_has_the_same_code(
    standing: Ureg,
    code: int,
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The program itself, in this process: starting a hundred would take most of the time."""
    for name in os.environ.keys() - standing.environ.keys():
        monkeypatch.delenv(name)
    for name, value in {**standing.environ, "EDITOR": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(standing.folder)
    monkeypatch.setattr(sys, "argv", ["ureg", *words])
    document = b'{"kind": "nokind", "name": "x", "spec": {}}'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(document), encoding="utf-8"))
    assert contextvars.copy_context().run(main) == code
    said = capsys.readouterr()
    assert re.fullmatch(r"ureg: [^\n]+\n", said.err)
    assert said.out == ""


async def test_what_is_not_kept_any_more_is_a_conflict(offline: Any) -> None:
    for number in range(4):
        offline("set", "alias", "gs", f"command={number}")
    store = SqliteRegistry.open(offline.home / ".universal_registry.db", CATALOGUE, WORLD)
    service: Any = SimpleNamespace(log=store)
    await compact(SimpleNamespace(service=service), values=3, lines=3)
    store.database.close()
    for words in (("get", "alias", "gs", "--rev", "1"), ("rollback", "alias", "gs", "--to", "1"), ("undo", "1")):
        assert "not kept any more" in offline(*words, code=5).stderr
