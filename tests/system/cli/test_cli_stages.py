"""`run` and `promote`: environments, on both engines, with a daemon and without."""

from __future__ import annotations

import json
from typing import Any

import pytest

BOTH = pytest.mark.parametrize("bare", ["sqlite", "postgresql"], indirect=True)
PRINT = ("sh", "-c", 'for name in "$@"; do printenv "$name" || echo unset; done', "sh")


def stages(ureg: Any) -> None:
    ureg(
        "create",
        "environment",
        "staging",
        "promotes_to=production",
        'variables:={"LEVEL": "debug", "N": 1, "URL": "a"}',
    )
    ureg("create", "environment", "production", "protected=true")
    ureg("set", "env_var", "URL", "value=postgresql://db/$(touch pwned) 'x\"", "-n", "staging")
    ureg("set", "env_var", "KEY", "secret_value=-", "-n", "staging", stdin="s3cret-canary")
    ureg("set", "env_var", "HIDDEN", "value=x", "exported=false", "-n", "staging")
    ureg("set", "service", "pay", "version=7", "environment=staging", "port=1", "-n", "staging")
    ureg("set", "secret", "db", "value=-", "-n", "staging", stdin="other-canary")


@BOTH
def test_a_command_is_given_the_variables(bare: Any, ureg: Any) -> None:
    stages(ureg)
    done = ureg("run", "--env", "staging", "--", *PRINT, "LEVEL", "N", "URL", "KEY", "HIDDEN", "HOME")
    assert done.stdout.splitlines() == [
        "debug", "1", "postgresql://db/$(touch pwned) 'x\"", "s3cret-canary", "unset", ureg.environ["HOME"],
    ]  # fmt: skip
    assert done.stderr == ""
    assert not list(ureg.folder.rglob("pwned"))


def test_it_exits_as_the_command_does(offline: Any) -> None:
    stages(offline)
    assert offline.run(("run", "--env", "staging", "--", "sh", "-c", "exit 77"), b"", {}).returncode == 77
    assert offline.run(("run", "--env", "staging", "sh", "-c", "kill -9 $$"), b"", {}).returncode == -9
    assert offline("run", "--env", "staging", "cat", "-", stdin="through").stdout == "through"
    done = offline("run", "--env", "staging", "--", "no-such-command", code=127)
    assert "no command 'no-such-command'" in done.stderr
    offline("run", "--env", "staging", "--", offline.write("plain", "x"), code=126)
    offline("run", "--env", "staging", code=2)
    offline("run", "--", "true", code=2)


def test_what_is_no_environment_is_said_in_one_line(offline: Any) -> None:
    assert "no environment nobody" in offline("run", "--env", "nobody", "--", "true", code=3).stderr
    for name in ("", "A_B", "../x", "x" * 64, "\U0001f980", "a\nb", "-"):
        offline("run", "--env", name, "--", "true", code=6)
    offline("set", "env_var", "a=b", "value=x", "-n", "odd")
    assert "'a=b' cannot be the name" in offline("run", "--env", "odd", "--", "true", code=6).stderr
    offline("set", "env_var", "a=b", "exported=false", "-n", "odd")
    offline("run", "--env", "odd", "--", "true")
    wrong = offline("create", "environment", "wrong", 'variables:={"a=b": "x"}', code=6)
    assert "spec.variables holds the name 'a=b'" in wrong.stderr
    offline("create", "environment", "twice")
    offline("create", "environment", "twice", "-n", "elsewhere")
    assert "2 namespaces" in offline("run", "--env", "twice", "--", "true", code=2).stderr


def test_whoever_may_not_read_the_key_is_given_nothing(offline: Any) -> None:
    stages(offline)
    (offline.home / "config" / "encryption.key").rename(offline.home / "config" / "elsewhere.key")
    done = offline.run(("run", "--env", "staging", "--", *PRINT, "LEVEL"), b"", {})
    assert done.returncode == 5
    assert done.stdout == ""
    assert "key" in done.stderr


@BOTH
def test_one_stage_becomes_the_next(bare: Any, ureg: Any) -> None:
    stages(ureg)
    ureg("set", "service", "only-here", "port=9", "-n", "production")
    ureg("set", "alias", "x; touch pwned", "command=$(touch pwned)", "-n", "staging")
    before = ureg.json("status")["revision"]
    shown = ureg("promote", "staging", "production", "--dry-run")
    assert "environment: production" in shown.stdout
    assert "left out: 3 of kind env_var, 1 of kind secret" in shown.stderr
    assert "second person" in ureg("promote", "staging", code=9).stderr
    assert ureg.json("status")["revision"] == before
    done = ureg("promote", "staging", "--approved-by", "a colleague", "-m", "release 7")
    assert f"2 created, revision {before + 1}\n" in done.stderr
    assert ureg.json("get", "service", "pay", "-n", "production")["spec"] == {
        "version": "7", "environment": "production", "port": 1,
    }  # fmt: skip
    assert ureg.json("history", "service", "pay", "-n", "production")[0]["message"] == (
        "promote staging to production, approved by a colleague: release 7"
    )
    ureg("get", "service", "only-here", "-n", "production")
    ureg("get", "secret", "db", "-n", "production", code=3)
    assert "2 unchanged" in ureg("promote", "staging", "production", "--approved-by", "x").stderr
    ureg("undo", str(before + 1))
    ureg("get", "service", "pay", "-n", "production", code=3)
    assert not list(ureg.folder.rglob("pwned"))


def test_each_stage_keeps_its_secrets(offline: Any) -> None:
    stages(offline)
    chosen = ("promote", "staging", "production", "--select", "kind=env_var,name=KEY", "--approved-by", "x")
    assert "ureg set env_var KEY secret_value=- -n production" in offline(*chosen, code=3).stderr
    others = offline("promote", "staging", "production", "--select", "kind=env_var", "--approved-by", "x", "--dry-run")
    assert "left out: env_var KEY" in others.stderr
    assert "env_var/production/URL created" in others.stdout
    offline("set", "env_var", "KEY", "secret_value=-", "-n", "production", stdin="its-own-canary")
    offline("set", "env_var", "KEY", "scope=session", "-n", "staging")
    offline(*chosen)
    assert offline.json("get", "env_var", "KEY", "-n", "production")["spec"]["scope"] == "session"
    found = offline("run", "--env", "production", "--", *PRINT, "KEY").stdout
    assert found == "its-own-canary\n"


def test_what_is_replaced_and_what_is_lacking_is_said(offline: Any) -> None:
    stages(offline)
    promote = ("promote", "staging", "production", "--select", "kind=service", "--approved-by", "x")
    assert "warning" not in offline(*promote).stderr
    offline("set", "service", "pay", "version=8", "-n", "staging")
    assert "warning" not in offline(*promote).stderr, "the stage before was changed last"
    offline("set", "service", "pay", "version=8.1", "-n", "production")
    hot = offline.json("get", "service", "pay", "-n", "production")["meta"]["revision"]
    for words in ((*promote, "--dry-run"), promote):
        said = offline(*words).stderr
        assert f"warning: service pay was changed in production (revision {hot}) after what replaces it" in said
    assert "warning" not in offline(*promote).stderr, "both are the same now"
    offline("set", "datastore", "main", "engine=postgresql", "-n", "staging")
    offline("set", "service", "pay", "depends_on=main,shared", "-n", "staging")
    offline("set", "datastore", "shared", "engine=postgresql")
    said = offline(*promote).stderr
    assert "warning: depends_on of service pay names datastore main, which production does not have" in said
    assert "shared" not in said
    assert "warning" not in offline("promote", "staging", "production", "--approved-by", "x").stderr


def test_a_secret_within_a_record_is_the_stage_s_own(offline: Any) -> None:
    stages(offline)
    offline("set", "datastore", "main", "engine=postgresql", "host=db.staging", "-n", "staging")
    offline(
        "set", "datastore", "main", "engine=postgresql", "host=db", "password=-", "-n", "production", stdin="canary"
    )
    before = offline.json("get", "datastore", "main", "-n", "production")["spec"]["password"]
    promote = ("promote", "staging", "production", "--select", "kind=datastore", "--approved-by", "x")
    offline(*promote)
    found = offline.json("get", "datastore", "main", "-n", "production")["spec"]
    assert (found["host"], found["password"]) == ("db.staging", before)
    offline("set", "datastore", "other", "engine=postgresql", "password=-", "-n", "staging", stdin="canary")
    done = offline(*promote)
    assert "ureg set datastore other password=- -n production" in done.stderr
    offline("get", "datastore", "other", "-n", "production", code=3)


def test_a_selector_reaches_no_other_namespace(offline: Any) -> None:
    stages(offline)
    offline("set", "alias", "other", "command=x", "-n", "third")
    offline("promote", "staging", "production", "--select", "namespace=third", "--approved-by", "x", code=2)


def test_what_cannot_be_promoted_is_said_in_one_line(offline: Any) -> None:
    stages(offline)
    for words, code in {
        ("staging", "staging"): 2,
        ("staging", "system"): 2,
        ("system", "staging"): 2,
        ("staging", "prodution"): 3,
        ("nobody", "production"): 3,
        ("nobody",): 3,
        ("../x", "production"): 6,
        ("staging", ""): 6,
        ("production",): 2,
        ("A B", "production"): 6,
        ("staging", "\u202e"): 6,
        ("staging", "production", "--select", "kind=nokind"): 3,
        ("staging", "production", "--select", "name=nobody"): 3,
        ("staging", "production", "-m", "x" * 1001): 6,
    }.items():
        done = offline("promote", *words, "--approved-by", "x", code=code)
        assert done.stderr.splitlines()[-1].startswith("ureg: "), words
    assert [json.loads(line)["name"] for line in offline("export", "-n", "production").stdout.splitlines()] == []
