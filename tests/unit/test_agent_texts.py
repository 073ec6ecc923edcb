"""What records are in files of a shell, of ssh and of hosts: read back by the programs that read them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.agents import item
from universal_registry.agent.texts import order_of, text_of
from universal_registry.kernel.errors import Invalid

HOSTILE = [
    "plain",
    "it's",
    "$(touch pwned) `touch pwned` $HOME",
    'a"b\\c',
    "two\nlines",
    "; touch pwned #",
    "\U0001f980 \u202e",
    "'; touch pwned; '",
    "x" * 5000,
]
SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh") if shutil.which(shell)]


def run(shell: str, folder: Path, text: str, line: str) -> str:
    (folder / "snippet").write_text(text)
    done = subprocess.run(
        [shell, "-c", f". ./snippet\n{line}"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert not (folder / "pwned").exists()
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_a_variable_is_what_it_was_in_every_shell(shell: str, tmp_path: Path) -> None:
    for value in HOSTILE:
        text = text_of(item("env_var", "V_1", value=value)) + "\n"
        assert run(shell, tmp_path, text, 'printf %s "$V_1"; sh -c \': "${V_1?}"\'') == value


@pytest.mark.parametrize("shell", SHELLS)
def test_a_function_runs_and_path_is_led_by_the_smallest_priority(shell: str, tmp_path: Path) -> None:
    records = [
        item("path", "b", path="/it's b", priority=2),
        item("path", "a", path="/a", priority=1),
        item("function", "hello", shell="sh", classification="PosixFunction", body='printf "<%s>" "$1"'),
        item("env_var", "N", value=7, exported=False),
    ]
    text = "".join(text_of(each) + "\n" for each in sorted(records, key=order_of))
    assert run(shell, tmp_path, text + text, 'hello "x y"; printf %s "$N ${PATH%%:/[bu]*}"').startswith(
        "<x y>7 /a:/it's b"
    )


def test_an_alias_is_what_it_was() -> None:
    for value in HOSTILE:
        text = text_of(item("alias", "gs", command=value))
        done = subprocess.run(
            ["bash", "-c", f'{text}\nprintf %s "${{BASH_ALIASES[gs]}}"'], capture_output=True, check=False
        )
        assert (done.returncode, done.stdout.decode()) == (0, value)


def test_what_is_for_one_shell_leaves_the_others_alone(tmp_path: Path) -> None:
    only = [
        item("alias", "G", command="| grep", **{"global": True}),
        item("function", "z", body="print -r -- ${(k)parameters}", shell="zsh"),
    ]
    for each in only:
        assert run("bash", tmp_path, text_of(each) + "\n", "true") == ""


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (item("alias", "a b", command="ls"), "no alias"),
        (item("alias", "-x", command="ls"), "no alias"),
        (item("alias", "$(touch pwned)", command="ls"), "no alias"),
        (item("alias", "a", command="x\x1b[31m"), "control character"),
        (item("alias", "a", command="x\0"), "control character"),
        (item("alias", "a", command="x", shell="fish"), "it is for fish"),
        (item("alias", "a", command="x", classification="GitAlias"), "of fish or git"),
        (item("env_var", "A-B", value="x"), "no shell variable"),
        (item("env_var", "A", secret_value={"$secret": "kept"}), "a secret"),
        (item("env_var", "A"), "no value"),
        (item("function", "f; touch pwned", body="x"), "no function"),
        (item("path", "p", path="relative"), "whole paths"),
        (item("path", "p", path="/a:/b"), "whole paths"),
        (item("host_alias", "h\nProxyCommand x", hostname="h"), "one plain word"),
        (item("host_alias", "h", hostname="h\nProxyCommand touch pwned"), "one plain word"),
        (item("host_alias", "h", options={"ProxyCommand": "x\nHost *"}), "control character"),
        (item("host_alias", "h", options={"A B": "x"}), "no option"),
        (item("host_alias", "h", options={"Host": "*"}), "other hosts"),
        (item("host_alias", "h", options={"match": "all"}), "other hosts"),
        (item("host_alias", "h", options={"Include": "/x"}), "other hosts"),
        (item("host_alias", "*", hostname="mitm.example"), "a pattern"),
        (item("host_alias", "h", aliases=["!h"]), "a pattern"),
        (item("host_alias", "h", options=["x"]), "no object"),
        (item("host_alias", "h", address="1.2.3.4 evil", classification="HostsFileAlias"), "one plain word"),
        (item("config_file", "c"), "no content"),
        (item("config_file", "c", content="\ud800"), "UTF-8"),
        (item("service", "s"), "not written into files"),
    ],
)
def test_what_cannot_be_written_as_what_it_means_is_refused(record: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        text_of(record)


def test_ssh_reads_its_hosts(tmp_path: Path) -> None:
    options = {"ForwardAgent": False, "ServerAliveInterval": 30}
    record = item("host_alias", "bastion", hostname="b.example", port=2222, user="deploy", options=options)
    assert text_of(record).splitlines() == [
        "Host bastion",
        "  HostName b.example",
        "  Port 2222",
        "  User deploy",
        "  ForwardAgent no",
        "  ServerAliveInterval 30",
    ]
    hosts = item(
        "host_alias",
        "web1@192.0.2.7",
        address="192.0.2.7",
        hostname="web1",
        aliases=["w"],
        classification="HostsFileAlias",
    )
    assert text_of(hosts) == "192.0.2.7 web1 w"
