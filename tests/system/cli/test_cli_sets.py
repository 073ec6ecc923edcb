"""`apply --set --prune`: files as the source, on both engines, with a daemon and without."""

from __future__ import annotations

import json
from typing import Any

import pytest

ENGINES = pytest.mark.parametrize("bare", ["sqlite", "postgresql"], indirect=True)


def alias(*names: str, command: str = "x") -> str:
    return "\n".join(json.dumps({"kind": "alias", "name": name, "spec": {"command": command}}) for name in names)


def names(ureg: Any) -> list[str]:
    return ureg("get", "alias", "-o", "name").stdout.split()


@ENGINES
def test_what_has_left_the_files_is_deleted_and_nothing_else(bare: Any, ureg: Any) -> None:
    ureg("set", "alias", "mine", "command=by hand")
    ureg("apply", "-f", "-", "--set", "team", stdin=alias("a", "b", "c"))
    before = ureg.json("status")["revision"]
    shown = ureg("apply", "-f", "-", "--set", "team", "--prune", "--dry-run", stdin=alias("b", "d"))
    assert "alias/default/a deleted" in shown.stdout
    assert "alias/default/d created" in shown.stdout
    assert "policy" not in shown.stdout
    assert ureg.json("status")["revision"] == before
    done = ureg("apply", "-f", "-", "--set", "team", "--prune", "-m", "smaller", stdin=alias("b", "d"))
    assert done.stderr == f"1 created, 2 deleted, 1 unchanged, revision {before + 1}\n"
    assert names(ureg) == ["alias/b", "alias/d", "alias/mine"]
    assert ureg.json("history", "alias", "a")[0]["message"] == "smaller"
    again = ureg("apply", "-f", "-", "--set", "team", "--prune", stdin=alias("b", "d"))
    assert again.stderr == f"2 unchanged, revision {before + 1}\n"
    ureg("undo", str(before + 1))
    assert names(ureg) == ["alias/a", "alias/b", "alias/c", "alias/mine"]
    ureg("apply", "-f", "-", "--set", "team", "--prune", stdin=alias("a"))  # the set was undone too
    assert names(ureg) == ["alias/a", "alias/mine"]


@ENGINES
def test_what_another_set_has_too_stays(offline: Any) -> None:
    offline("apply", "-f", "-", "--set", "one", stdin=alias("a", "b"))
    offline("apply", "-f", "-", "--set", "two", stdin=alias("b"))
    done = offline("apply", "-f", "-", "--set", "one", "--prune", stdin=alias("c"))
    assert "warning: alias/default/b is of the set two too, and stays" in done.stderr
    assert names(offline) == ["alias/b", "alias/c"]
    offline("apply", "-f", "-", "--set", "two", "--prune", stdin=alias("d"))
    assert names(offline) == ["alias/c", "alias/d"]


def test_what_the_set_lost_meanwhile_is_not_missed(offline: Any) -> None:
    offline("apply", "-f", "-", "--set", "one", stdin=alias("a", "b"))
    offline("delete", "alias", "a")
    assert "1 created" in offline("apply", "-f", "-", "--set", "one", "--prune", stdin=alias("c")).stderr
    assert names(offline) == ["alias/c"]


@ENGINES
def test_what_somebody_has_made_anew_stays(offline: Any) -> None:
    offline("apply", "-f", "-", "--set", "one", stdin=alias("a", "b", "c"))
    offline("delete", "alias", "a")
    offline("set", "alias", "a", "command=by hand")
    offline("apply", "-f", "-", "--set", "one", stdin=alias("c", "d"))  # the set is newer than it now
    done = offline("apply", "-f", "-", "--set", "one", "--prune", stdin=alias("d"))
    assert done.stderr == "2 deleted, 1 unchanged, revision 5\n"
    assert names(offline) == ["alias/a", "alias/d"]
    offline("delete", "alias", "d")
    offline("set", "alias", "d", "command=by hand")
    done = offline("apply", "-f", "-", "--set", "one", "--prune", stdin=alias("e"))
    assert "warning: alias/default/d was made anew by uid:" in done.stderr
    assert names(offline) == ["alias/a", "alias/d", "alias/e"]


def test_what_the_set_itself_has_made_anew_is_its_own(offline: Any) -> None:
    offline("apply", "-f", "-", "--set", "one", stdin=alias("a", "b"))
    offline("delete", "alias", "a")
    offline("apply", "-f", "-", "--set", "one", stdin=alias("a", "b"))
    offline("apply", "-f", "-", "--set", "one", "--prune", stdin=alias("b"))
    assert names(offline) == ["alias/b"]


def test_what_was_there_before_the_set_is_said(offline: Any) -> None:
    offline("set", "alias", "a", "command=x")
    done = offline("apply", "-f", "-", "--set", "one", stdin=alias("a", "b"))
    assert "warning: alias/default/a was there already, and is of the set one now" in done.stderr
    assert offline("apply", "-f", "-", "--set", "one", stdin=alias("a", "b")).stderr.startswith("2 unchanged")


def test_a_set_is_all_or_nothing_and_says_which_document(offline: Any) -> None:
    offline("apply", "-f", "-", "--set", "one", stdin=alias("a"))
    bad = alias("b") + '\n{"kind": "alias", "name": "c", "spec": {"command": 5}}'
    assert "document 2" in offline("apply", "-f", "-", "--set", "one", "--prune", code=6, stdin=bad).stderr
    assert names(offline) == ["alias/a"]
    guarded = '{"kind": "alias", "name": "a", "spec": {"command": "y"}, "meta": {"revision": 99}}'
    offline("apply", "-f", "-", "--set", "one", "--prune", code=5, stdin=guarded)


def test_pruning_needs_a_set_and_documents(offline: Any) -> None:
    assert "--set NAME" in offline("apply", "-f", "-", "--prune", code=2, stdin=alias("a")).stderr
    offline("apply", "-f", "-", "--set", "one", stdin=alias("a"))
    assert "all of the set" in offline("apply", "-f", "-", "--set", "one", "--prune", code=2, stdin="").stderr
    for name in ("a b", "-", "..", "x" * 64, "a\x1b[31m", "\U0001f980"):
        offline("apply", "-f", "-", "--set", name, code=6, stdin=alias("a"))
    offline("apply", "-f", "-", "--set", "", code=2, stdin=alias("a"))
    assert names(offline) == ["alias/a"]


def test_a_set_that_somebody_has_written_otherwise_deletes_nothing(offline: Any) -> None:
    offline("apply", "-f", "-", "--set", "one", stdin=alias("a"))
    offline("set", "policy", "apply-set.one", "-n", "system", 'apply_set:={"members": ["nonsense"]}')
    done = offline("apply", "-f", "-", "--set", "one", "--prune", code=6, stdin=alias("b"))
    assert "ureg history policy apply-set.one -n system" in done.stderr
    offline("apply", "-f", "-", "--set", "two", stdin=alias("c"))  # which has nothing to do with it
    offline("apply", "-f", "-", "--set", "two", "--prune", code=6, stdin=alias("d"))
    assert names(offline) == ["alias/a", "alias/c"]


def test_whoever_may_write_may_keep_a_set_but_touches_nothing_of_the_registry_itself(online: Any) -> None:
    address = (online.home / "run" / "address").read_text().splitlines()[1]
    token = online.write("ci.token", online("token", "add", "ci", "--scope", "write").stdout)
    online("context", "add", "ci", f"http://{address}", "--token-file", token)
    as_ci = ("--context", "ci")
    online("apply", "-f", "-", "--set", "one", *as_ci, stdin=alias("a", "b"))
    online("apply", "-f", "-", "--set", "one", "--prune", *as_ci, stdin=alias("b"))
    assert names(online) == ["alias/b"]
    own = '{"kind": "alias", "name": "x", "namespace": "system", "spec": {"command": "x"}}'
    online("apply", "-f", "-", "--set", "one", *as_ci, code=4, stdin=own)
    online("apply", "-f", "-", "--set", "ours", stdin=own)
    online("apply", "-f", "-", "--set", "ours", "--prune", *as_ci, code=4, stdin=alias("b"))
    assert online("get", "alias", "-n", "system", "-o", "name").stdout == "alias/x\n"
