"""Daemons on PostgreSQL: `REGISTRY_DB_*` alone makes the difference."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pgserver
import pytest

CANARY = "canary-hunter2"


@pytest.fixture
def env(postgres: pgserver.Server) -> dict[str, str]:
    """What daemon and commands are told. The server asks for no password, so this one must just be seen nowhere."""
    postgres.database("daemons")
    return {**postgres.environment("daemons"), "REGISTRY_DB_PASSWORD": CANARY}


def test_init_up_set_get_and_status_say_where_it_is(
    ureg: Callable[..., Any], env: dict[str, str], tmp_path: Path, postgres: pgserver.Server
) -> None:
    home = tmp_path / "home"
    assert ureg(home, "get", "alias/gs", **env).returncode == 3
    assert "new, revision 0" in ureg(home, "init", **env).stdout
    assert "revision 0" in ureg(home, "init", **env).stdout
    # Without a daemon, and with one.
    assert ureg(home, "set", "alias", "gs", "command=git status", **env).returncode == 0
    try:
        assert ureg(home, "up", **env).returncode == 0
        assert ureg(home, "set", "alias", "gd", "command=git diff", **env).returncode == 0
        said = [ureg(home, *words, **env) for words in (("status",), ("get", "alias"), ("get", "alias/nope"))]
        assert "postgresql, revision 2" in said[0].stdout
        assert ("gs" in said[1].stdout, "gd" in said[1].stdout) == (True, True)
        command_line = Path(f"/proc/{(home / 'run' / 'ureg.pid').read_text().strip()}/cmdline").read_bytes()
    finally:
        assert ureg(home, "down", **env).returncode == 0
    assert not list(home.glob(".*.db*"))
    shown = "".join(each.stdout + each.stderr for each in said) + (home / "logs" / "registry.log").read_text()
    assert CANARY not in shown
    assert CANARY.encode() not in command_line
    assert postgres.sql("SELECT name FROM registry.aliases ORDER BY name", "daemons").split() == ["gd", "gs"]


def test_missing_steps_of_the_schemas_are_listed_and_run(
    ureg: Callable[..., Any], env: dict[str, str], tmp_path: Path, postgres: pgserver.Server
) -> None:
    home = tmp_path / "home"

    def listed() -> list[str]:
        done = ureg(home, "db", "migrate", "--dry-run", "-o", "name", **env)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    missing = listed()
    assert missing[0] == "registry/0001"
    assert "propagation/0001" in missing
    assert listed() == missing, "looking changes nothing"
    assert ureg(home, "init", **env).returncode == 0
    assert listed() == []
    assert ureg(home, "db", "migrate", **env).stderr == "no migrations to run: the stores are up to date\n"
    postgres.sql("INSERT INTO propagation.migrations (number, name) VALUES (99, 'later')", "daemons")
    done = ureg(home, "db", "migrate", "--dry-run", **env)
    assert (done.returncode, "schema propagation 99" in done.stderr) == (5, True)


def test_two_daemons_on_one_database_hear_of_each_other(
    start: Callable[..., Any], env: dict[str, str], tmp_path: Path
) -> None:
    one = start(tmp_path / "one", **env).ready()
    shutil.copytree(tmp_path / "one" / "config", tmp_path / "two" / "config")
    two = start(tmp_path / "two", **env).ready()
    for turn, (writer, reader) in enumerate([(one, two), (two, one)] * 3, 1):
        document = {"spec": {"command": str(turn)}}
        writer.client().request("PUT", "/v1/default/aliases/gs", json=document)
        found = reader.client().request("GET", "/v1/default/aliases/gs").json()
        assert (found["meta"]["revision"], found["spec"]["command"]) == (turn, str(turn))
    # A poll that waits at the one is woken by what the other writes.
    began = time.monotonic()
    lines = one.client().request("GET", "/v1/changes?limit=100").body.splitlines()
    cursor = json.loads(lines[-1])["cursor"]
    two.client().request("PUT", "/v1/default/aliases/late", json={"spec": {"command": "x"}})
    answer = one.client().request("GET", f"/v1/changes?after={cursor}&wait=20").body.splitlines()
    assert json.loads(answer[0])["name"] == "late"
    assert time.monotonic() - began < 15
    assert [daemon.end() for daemon in (one, two)] == [0, 0]


def test_another_key_is_refused_and_never_made(ureg: Callable[..., Any], env: dict[str, str], tmp_path: Path) -> None:
    assert ureg(tmp_path / "one", "init", **env).returncode == 0
    done = ureg(tmp_path / "two", "init", **env)
    assert (done.returncode, done.stdout) == (5, "")
    assert "was sealed with key" in done.stderr
    assert not (tmp_path / "two" / "config" / "encryption.key").exists()


def test_a_server_that_goes_and_comes_back_is_survived(
    start: Callable[..., Any], ureg: Callable[..., Any], tmp_path: Path
) -> None:
    try:
        server = pgserver.Server()
    except pgserver.NoServerHere as error:
        pytest.skip(str(error))
    try:
        server.database("daemons")
        env = server.environment("daemons")
        daemon = start(tmp_path / "home", **env).ready()
        assert ureg(tmp_path / "home", "set", "alias", "gs", "command=x", **env).returncode == 0
        server.stop()
        gone = ureg(tmp_path / "home", "set", "alias", "gs", "command=y", **env)
        assert gone.returncode == 1
        assert "cannot be reached" in gone.stderr
        assert len(gone.stderr.splitlines()) == 1
        server.start()
        assert ureg(tmp_path / "home", "set", "alias", "gs", "command=y", **env).returncode == 0
        assert daemon.end() == 0
    finally:
        server.close()
    assert "Traceback" not in (tmp_path / "home" / "logs" / "registry.log").read_text()


@pytest.mark.parametrize("name", ["NAME", "USER", "PASSWORD", "PORT"])
def test_half_of_an_address_ends_every_command_and_makes_nothing(
    ureg: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    for words in (("init",), ("serve",), ("get", "alias")):
        done = ureg(tmp_path / "home", *words, **{f"REGISTRY_DB_{name}": CANARY})
        assert (done.returncode, done.stdout) == (2, "")
        assert "REGISTRY_DB_HOST is missing" in done.stderr
        assert CANARY not in done.stderr
    assert not (tmp_path / "home").exists()
