"""Queries, contexts, `config set`, going back and looking ahead, at the command line."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest
from authority import Authority
from cryptography.hazmat.primitives import serialization

from tests.system.cli.conftest import UREG


def test_a_query_writes_what_it_makes_of_the_json(ureg: Any) -> None:
    for name in ("gl", "gs"):
        ureg("set", "alias", name, f"command=git {name}")
    assert ureg("get", "alias", "--query", "[].name").stdout == "gl\ngs\n"
    assert ureg("get", "alias", "gs", "--query", "spec.command").stdout == "git gs\n"
    assert ureg("get", "alias", "--query", "[].[name, spec.command]", "-o", "tsv").stdout == "gl\tgit gl\ngs\tgit gs\n"
    assert json.loads(ureg("get", "alias", "--query", "[?name=='gs']", "-o", "json").stdout)[0]["name"] == "gs"
    assert ureg("get", "alias", "gs", "--query", "spec.nothing").stdout == ""
    assert ureg("status", "--query", "kinds.alias").stdout == "2\n"
    for wrong in ("[", "nope(@)"):
        assert "--query" in ureg("get", "alias", "--query", wrong, code=2).stderr
    assert "--query '[].name'" in ureg("get", "alias", "--query", "[]", "-o", "name", code=2).stderr


def test_create_leaves_alone_what_is_there(ureg: Any) -> None:
    ureg("create", "alias", "gs", "command=one")
    ureg("create", "alias", "gs", "command=two", code=5)
    assert ureg.json("get", "alias", "gs")["spec"]["command"] == "one"


def test_dry_runs_show_and_store_nothing(ureg: Any) -> None:
    ureg("set", "alias", "gs", "command=one")
    document = ureg.write("a.yaml", "kind: alias\nname: gs\nspec: {command: two}\n---\nkind: alias\nname: new\n"
                                    "spec: {command: new}\n")  # fmt: skip
    for words in (
        ("set", "alias", "gs", "command=two"),
        ("patch", "alias", "gs", '[{"op": "replace", "path": "/spec/command", "value": "two"}]'),
        ("apply", "-f", document),
        ("import", document),
    ):
        shown = ureg(*words, "--dry-run")
        assert "-  command: one" in shown.stdout
        assert "+  command: two" in shown.stdout
        assert "nothing is stored" in shown.stderr
    assert "deleted" in ureg("delete", "alias", "gs", "--dry-run").stdout
    assert ureg.json("get", "alias", "gs")["meta"]["revision"] == ureg.json("status")["revision"] == 1
    found = json.loads(ureg("diff", "-f", document, "-o", "json", code=1).stdout)
    assert [each["effect"] for each in found["results"]] == ["updated", "created"]
    ureg("apply", "-f", document)
    ureg("diff", "-f", document)
    bad = ureg.write("bad.yaml", "- 3\n")
    assert "document 1" in ureg("diff", "-f", bad, code=6).stderr


def test_going_back(ureg: Any) -> None:
    ureg("set", "alias", "gs", "command=one")
    ureg("set", "alias", "gs", "command=two")
    ureg("delete", "alias", "gs")
    assert "back" not in ureg("undelete", "alias", "gs", "--dry-run").stdout
    ureg("get", "alias", "gs", code=3)
    ureg("undelete", "alias", "gs")
    assert ureg.json("get", "alias", "gs")["spec"]["command"] == "two"
    ureg("rollback", "alias/gs", "--to", "1")
    assert ureg.json("get", "alias", "gs")["spec"]["command"] == "one"
    assert "in revision 5" in ureg("undo", "2", code=5).stderr
    ureg("undo", "5")
    assert ureg.json("get", "alias", "gs")["spec"]["command"] == "two"
    ureg("undo", "99", code=3)
    ureg("rollback", "alias", "nothing", "--to", "1", code=3)


def test_an_editor_changes_a_record(ureg: Any) -> None:
    ureg("set", "alias", "gs", "command=one")
    ureg("edit", "alias", "gs", EDITOR="sed -i s/one/two/")
    assert ureg.json("get", "alias", "gs")["spec"]["command"] == "two"
    assert "nothing was changed" in ureg("edit", "alias", "gs", EDITOR="true").stderr
    assert "kept in" in ureg("edit", "alias", "gs", code=6, EDITOR="sed -i s/command/commnd/;s/two/[/").stderr
    assert "kept" not in ureg("edit", "alias", "gs", code=1, EDITOR="false").stderr
    assert "kept" not in ureg("edit", "alias", "gs", code=3, EDITOR="no-such-editor").stderr
    for editor in ("a 'b", " ", "''"):
        ureg("edit", "alias", "gs", code=3 if editor == "''" else 2, EDITOR=editor)


def test_an_edit_is_foretold_and_what_was_written_is_kept(ureg: Any) -> None:
    ureg("set", "alias", "gs", "command=one")
    editor = "sed -i 's/command: one/command: two/'"
    done = ureg("edit", "alias", "gs", "--dry-run", EDITOR=editor)
    assert "-  command: one" in done.stdout
    assert "+  command: two" in done.stdout
    kept = done.stderr.split("what you wrote is kept in ")[1].strip()
    assert "command: two" in Path(kept).read_text()
    Path(kept).unlink()
    assert ureg.json("get", "alias", "gs")["spec"]["command"] == "one"
    assert "kept" not in ureg("edit", "alias", "gs", "--dry-run", EDITOR="true").stderr


def test_what_was_written_in_an_editor_is_never_lost(offline: Any) -> None:
    offline("set", "alias", "gs", "command=one")
    drafts = offline.folder / "drafts"
    drafts.mkdir()
    for end in ("exit 1", "kill -9 $$", "kill -INT $PPID", 'echo { >> "$0"'):
        editor = f"sh -c 'sed -i s/one/written/ \"$0\"; {end}'"
        done = offline.run(("edit", "alias", "gs"), b"", {"EDITOR": editor, "TMPDIR": str(drafts)})
        assert done.returncode in (1, 6, 130), done
        (kept,) = set(drafts.iterdir())
        assert f"kept in {kept}" in done.stderr, end
        assert "written" in kept.read_text()
        kept.unlink()
    assert offline.json("get", "alias", "gs")["spec"]["command"] == "one"
    offline("edit", "alias", "gs", EDITOR="sed -i s/one/two/", TMPDIR=str(drafts))
    offline("edit", "alias", "gs", EDITOR="rm", TMPDIR=str(drafts), code=3)
    assert list(drafts.iterdir()) == []


def test_contexts_choose_the_registry(online: Any) -> None:
    online("set", "alias", "gs", "command=x")
    home = online.environ.pop("REGISTRY_HOME")
    address = (online.home / "run" / "address").read_text().splitlines()[1]
    token = str(online.home / "config" / "admin.token")
    online("context", "add", "here", home)
    online("context", "add", "far", f"http://{address}", "--token-file", token)
    assert online("get", "alias", "--context", "here", "-o", "name").stdout == "alias/gs\n"
    assert online("get", "alias", "--context", "far", "-o", "name").stdout == "alias/gs\n"
    assert online("get", "alias", "-o", "name", REGISTRY_CONTEXT="far").stdout == "alias/gs\n"
    online("context", "use", "far")
    assert online("get", "alias", "-o", "name").stdout == "alias/gs\n"
    assert online.json("status")["home"] == f"http://{address}"
    assert [each["current"] for each in online.json("context", "ls")] == [True, False]
    assert "this machine only" in online("db", "check", code=2).stderr
    assert "did you mean 'here'" in online("get", "alias", "--context", "hree", code=3).stderr
    online("get", "alias", "--context", "far", "--home", home, code=2)
    assert "in clear" in online("context", "add", "x", "http://registry.example", code=2).stderr
    told = online("context", "use", "here", REGISTRY_HOME="/elsewhere").stderr
    assert "/elsewhere: REGISTRY_HOME counts more" in told
    assert (
        "context far: REGISTRY_CONTEXT counts more" in online("context", "use", "here", REGISTRY_CONTEXT="far").stderr
    )
    assert online("context", "use", "far").stderr == ""
    assert online("context", "use", "-", REGISTRY_HOME="/elsewhere").stderr == ""
    online("context", "use", "far")
    online("context", "rm", "far")
    online("context", "use", "here")
    assert online.json("status")["home"] == home
    online.environ["REGISTRY_HOME"] = home


def test_a_context_speaks_tls_and_checks_who_answers(bare: Any) -> None:
    authority = Authority(bare.folder)
    pem = str(authority.pem("127.0.0.1"))
    ca = bare.folder / "ca.pem"
    ca.write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
    bare.environ |= {"REGISTRY_TLS_CERT": pem, "REGISTRY_TLS_KEY": pem}
    bare("init")
    bare("up")
    try:
        bare("set", "alias", "gs", "command=x")
        address = (bare.home / "run" / "address").read_text().splitlines()[1]
        token = str(bare.home / "config" / "admin.token")
        bare("context", "add", "sure", f"https://{address}", "--token-file", token, "--ca", str(ca))
        bare("context", "add", "unsure", f"https://{address}", "--token-file", token)
        assert bare("get", "alias", "--context", "sure", "-o", "name").stdout == "alias/gs\n"
        bare("set", "alias", "gl", "command=y", "--context", "sure")
        assert "certificate" in bare("get", "alias", "--context", "unsure", code=7).stderr
        assert "certificate" in bare("get", "alias", "-w", "--context", "unsure", code=7).stderr
        assert "certificate" in bare("stream", "tail", "--context", "unsure", code=7).stderr
        for words in (("get", "alias", "-w"), ("stream", "tail", "--from", "list"), ("follow", "sure", "kind=alias")):
            told = bare.start(*words, *(() if words[0] == "follow" else ("--context", "sure")))
            assert told.stdout is not None
            assert "alias/gl" in told.stdout.readline()
            told.terminate()
            assert told.wait(60) == 0
    finally:
        bare("down")


def test_settings_are_written_into_config_py(offline: Any) -> None:
    offline("config", "set", "retry.max_retries", "8")
    offline("config", "set", "retry.jitter", "full")
    shown = offline.json("config", "show", "retry", "--origin", "--changed")
    assert {each["setting"]: each["value"] for each in shown} == {"retry.max_retries": 8, "retry.jitter": "full"}
    assert all(each["origin"].startswith("config.py:") for each in shown)
    offline("config", "validate")
    assert "did you mean retry.max_retries" in offline("config", "set", "retry.max_retrys", "8", code=3).stderr
    assert "REGISTRY_LISTEN" in offline("config", "set", "listen", "x", code=2).stderr
    wrong = offline("config", "set", "retry.max_retries", "many", code=2).stderr
    assert "retry.max_retries is 'many'" in wrong
    assert "--" not in wrong
    offline("config", "validate", code=1, REGISTRY_NONSENSE="1")
    assert "counts more" in offline("config", "set", "retry.max_retries", "9", REGISTRY_RETRY_MAX_RETRIES="3").stderr
    config = offline.home / "config.py"
    config.write_text('RETRY_CONFIG = {"max_retries": -1}\n')
    assert "max_retries is -1" in offline("config", "validate", code=2).stderr
    offline("config", "set", "retry.max_retries", "3")
    assert "3" in config.read_text(), "it mends the value that could not be used"
    offline("config", "validate")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("RETRY_CONFIG = {}\n", 'RETRY_CONFIG = {\n    "max_retries": 8,\n}\n'),
        ('RETRY_CONFIG = {\n    "max_retries": 5,  # é\n}\n', 'RETRY_CONFIG = {\n    "max_retries": 8,  # é\n}\n'),
        ('X = "é"; RETRY_CONFIG = {"enabled": True}\n', None),
        ('RETRY_CONFIG = {\n    "enabled": True,  # kept\n}\nz = 1\n', None),
        ("", 'RETRY_CONFIG = {\n    "max_retries": 8,\n}\n'),
    ],
)
def test_only_one_value_of_config_py_is_changed(before: str, after: str | None) -> None:
    from universal_registry.cli.config_file import with_value
    from universal_registry.kernel.literals import literal_tables

    made = with_value(before, "RETRY_CONFIG", "max_retries", 8, "config.py")
    found = literal_tables(made, "config.py", ["RETRY_CONFIG"])["RETRY_CONFIG"]
    assert found["max_retries"].value == 8
    assert ("enabled" in before) is ("enabled" in found)
    assert after is None or made == after
    assert ("# kept" in before) is ("# kept" in made)


def test_a_wide_table_is_cut_nowhere(online: Any) -> None:
    long = "x" * 400
    online("set", "alias", "gs", f"command={long}")
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    try:
        shown = {}
        for form in ("table", "wide"):
            subprocess.run([*UREG, "get", "alias", "-o", form], env=online.environ, stdout=side, check=True, timeout=60)
            shown[form] = os.read(main, 65536).decode().splitlines()
    finally:
        os.close(side)
        os.close(main)
    assert max(map(len, shown["table"])) <= 60
    assert long in "".join(shown["wide"])
    assert online("get", "alias", "gs", "-o", "wide").stdout == online("get", "alias", "gs").stdout
    assert "no form of a watch" in online("get", "alias", "-w", "-o", "wide", code=2).stderr
    assert online("get", "alias", "-o", "wide", "--query", "[].name").stdout == "gs\n"
    online("key", "ls", "-o", "wide")
    assert "checks:" in online.run(("doctor", "-o", "wide"), b"", {}).stderr
