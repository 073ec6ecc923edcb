"""init, status, get, set, delete, apply, export, kinds, classes, explain: the same with a daemon and without."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest

from universal_registry.kernel.loader import load_yaml

UREG = [sys.executable, "-P", "-m", "universal_registry"]
HOSTILE = ["g++", "@scope/pkg", "..", ".", "[", "x; touch pwned", "$(touch pwned)", "HTTP_PROXY", "http_proxy", "-rf"]
HOSTILE += [
    "-",
    "*",
    "a?b",
    "back\\slash",
    "a,b",
    "%2F",
    "/usr/bin",
    "10.0.0.0/8",
    "🦊" * 63,
    "é\u202ex",
    "'\"",
    "a=b",
    "~",
]


def test_before_init_everything_says_what_to_do(bare: Any) -> None:
    for words in (["status"], ["get", "alias"], ["set", "alias", "a", "command=b"], ["where", "x"], ["export"]):
        assert "ureg init" in bare(*words, code=3).stderr
    assert not bare.home.exists()


def test_init_twice_does_no_harm(bare: Any) -> None:
    assert "config/encryption.key" in bare("init").stdout
    assert bare("status").stdout.splitlines()[1].endswith("not running (ureg up)")
    assert "there already" in bare("init").stdout


def test_home_may_stand_before_or_after_the_command(bare: Any) -> None:
    other = str(bare.folder / "other")
    bare("--home", other, "init")
    assert bare("status", "--home", other, "-o", "json").stdout == bare("--home", other, "status", "-o", "json").stdout
    assert not bare.home.exists()
    assert bare("get", "alias", "--home", other).stdout == ""


def test_a_record_comes_changes_and_goes(ureg: Any) -> None:
    assert ureg("set", "alias", "gs", "command=git status -sb").stdout == "alias/default/gs created, revision 1\n"
    assert ureg("set", "alias", "gs", "command=git status -sb").stdout == "alias/default/gs unchanged, revision 1\n"
    assert ureg("set", "alias", "gs", "line=3", "-m", "why").stdout == "alias/default/gs updated, revision 2\n"
    shown = ureg.json("get", "alias", "gs")
    assert shown["spec"] == {"command": "git status -sb", "line": 3}
    assert ureg.json("get", "aliases") == [shown]
    assert ureg("get", "alias", "gs", "-o", "name").stdout == "alias/gs\n"
    assert ureg("get", "alias/gs", "-o", "ndjson").stdout.count("\n") == 1
    assert load_yaml(ureg("get", "alias", "gs", "-o", "yaml").stdout) == [shown]
    cells = ureg("get", "alias", "-o", "tsv").stdout.rstrip("\n").split("\t")
    assert cells[:4] == ["gs", "ZshAlias", "2", "2"]
    assert json.loads(cells[5]) == shown["spec"]
    table = ureg("get", "alias").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["NAME", "gs"]
    assert ureg("delete", "alias", "gs").stdout == "alias/default/gs deleted, revision 3\n"
    assert "no alias 'gs'" in ureg("delete", "alias", "gs", code=3).stderr
    ureg("delete", "alias", "gs", "--missing-ok")
    empty = ureg("get", "alias")
    assert (empty.stdout, empty.stderr) == ("", "no aliases\n")
    assert ureg.json("get", "alias") == []


def test_hostile_names_go_through_every_command(ureg: Any) -> None:
    for name in HOSTILE:
        ureg("set", "alias", "--", name, f"command:={json.dumps(name)}")
    assert {item["name"] for item in ureg.json("get", "alias")} == set(HOSTILE)
    for name in HOSTILE:
        shown = json.loads(ureg("get", "alias", "-o", "json", "--", name).stdout)
        assert (shown["name"], shown["spec"]["command"]) == (name, name)
    exported = ureg("export").stdout
    names = [json.loads(line)["name"] for line in exported.splitlines()]
    assert sorted(names) == sorted(HOSTILE)
    ureg("delete", "alias", "--", *HOSTILE)
    assert ureg("export").stdout == ""
    ureg("apply", "-f", "-", stdin=exported)
    assert ureg("export").stdout == exported
    assert not list(ureg.folder.rglob("pwned"))


def test_what_get_prints_can_be_applied_and_changes_nothing(ureg: Any) -> None:
    ureg("set", "function", "f", "body:=" + json.dumps("# é\n  x: 1\n\n'\t🦊\u2028\u202e\\n"), "shell=zsh")
    ureg("set", "env_var", "KEY", "secret_value=-", stdin="hush\n")
    ureg("set", "service", "pay", "class=AppService", "labels.tier=backend", "port=8443", "version=1.0")
    for kind in ("function", "env_var", "service"):
        for form in ("yaml", "json", "ndjson"):
            shown = ureg("get", kind, "-o", form).stdout
            assert "hush" not in shown
            done = ureg("apply", "-f", "-", stdin=shown)
            assert (done.stdout, done.stderr) == ("", "1 unchanged, revision 3\n")
    assert load_yaml(ureg("export", "-o", "yaml").stdout) == json.loads(ureg("export", "-o", "json").stdout)


def test_secrets_are_better_not_in_the_command_line(ureg: Any) -> None:
    assert "ps" in ureg("set", "env_var", "A", "secret_value=hush").stderr
    secret = ureg.write("secret.txt", "from a file\n")
    assert ureg("set", "env_var", "B", f"secret_value=@{secret}").stderr == ""
    assert ureg("set", "env_var", "B", "secret_value=-", stdin="from a file").stdout.startswith(
        "env_var/default/B unch"
    )
    everything = ureg("get", "env_var", "-o", "json").stdout + ureg("export").stdout
    assert "hush" not in everything
    assert "from a file" not in everything


def test_a_name_is_found_in_the_namespace_where_it_is(ureg: Any) -> None:
    ureg("set", "alias", "a", "command=x", "-n", "host1")
    assert ureg.json("get", "alias", "a")["namespace"] == "host1"
    assert "-n host1" in ureg("delete", "alias", "a", code=3).stderr
    ureg("set", "alias", "a", "command=x", "-n", "host2")
    assert "2 namespaces: host1, host2" in ureg("get", "alias", "a", code=2).stderr
    ureg("set", "alias", "a", "command=mine")
    assert ureg.json("get", "alias", "a")["spec"] == {"command": "mine"}
    assert len(ureg.json("get", "alias")) == 3
    assert len(ureg.json("get", "alias", "-n", "host2")) == 1


def test_lists_are_filtered(ureg: Any) -> None:
    ureg("set", "service", "pay", "class=WebService", "labels.tier=backend", "port=1")
    ureg("set", "service", "shop", "class=DaemonService", "port=2")

    def names(*words: str) -> list[str]:
        return [line.removeprefix("service/") for line in ureg("get", "service", "-o", "name", *words).stdout.split()]

    assert names() == ["pay", "shop"]
    assert names("--class", "AppService") == ["pay"]
    assert names("-l", "tier=backend") == ["pay"]
    assert names("-l", "!tier") == ["shop"]
    assert names("--field", "port=2") == ["shop"]
    assert names("--name", "s*") == ["shop"]
    assert names("--select", "name=p*") == ["pay"]


def test_apply_is_all_or_nothing_and_names_the_document(ureg: Any) -> None:
    good = "kind: alias\nname: one\nspec: {command: x}\n---\nkind: service\nname: pay\nspec: {port: 1}\n"
    assert ureg("apply", "-f", ureg.write("good.yaml", good)).stdout == (
        "alias/default/one created, revision 1\nservice/default/pay created, revision 1\n"
    )
    bad = ureg.write("records/bad.yaml", "kind: alias\nname: two\nspec: {command: x}\n---\nkind: alias\nname: three\n")
    done = ureg("apply", "-f", str(ureg.folder / "records"), code=6)
    assert f"{bad}, document 2: spec.command is missing" in done.stderr
    for text in ('{"kind": "alias", "kind": "alias"}', "a: &x 1\nb: *x\n", "{", "kind: nosuch\nname: x\n", "- 1\n"):
        ureg("apply", "-f", "-", stdin=text, code=6)
    assert ureg("export").stdout.count("\n") == 2
    assert ureg("apply", "-f", "-", stdin="").stderr == "no documents, nothing to do\n"
    ureg("apply", "-f", "nothing.yaml", code=3)
    guarded = "kind: alias\nname: one\nspec: {command: y}\nmeta: {revision: 7}\n"
    ureg("apply", "-f", "-", stdin=guarded, code=5)


def test_two_thousand_records_at_once(ureg: Any) -> None:
    lines = [json.dumps({"kind": "alias", "name": f"a{n}", "spec": {"command": "x"}}) for n in range(2000)]
    done = ureg("apply", "-f", "-", stdin="\n".join(lines))
    assert done.stderr == "2000 created, revision 1\n"
    assert len(ureg("get", "alias", "-o", "name").stdout.splitlines()) == 2000


def test_guards_types_and_unknown_words(ureg: Any) -> None:
    ureg("set", "alias", "a", "command=x", "--if-revision", "0")
    ureg("set", "alias", "a", "command=y", "--if-revision", "0", code=5)
    ureg("set", "alias", "a", "command=y", "--if-revision", "9", code=5)
    assert "port is 'x'" in ureg("set", "service", "s", "port=x", code=6).stderr
    assert "did you mean 'aliases'" in ureg("get", "alas", code=3).stderr
    assert "ureg kinds" in ureg("set", "qqqqqq", "x", code=3).stderr
    assert "undeclared" in ureg("set", "service", "s", "undeclared=1").stderr
    ureg("set", "service", "t", "undeclared=1", "--strict", code=6)
    ureg("get", "alias", "nosuch", code=3)
    ureg("set", "alias", "a\x1bb", "command=x", code=6)
    ureg("set", "alias", "x" * 254, "command=x", code=6)
    ureg("set", "alias", "b", "--json", '{"command": "x", "command": "y"}', code=6)
    ureg("set", "alias", "b", "--json", '{"command": "from json"}', "line=1")
    document = ureg.write("b.yaml", "kind: other\nname: other\nspec: {command: from file}\n")
    ureg("set", "alias", "b", "-f", document, "--replace")
    assert ureg.json("get", "alias", "b")["spec"] == {"command": "from file"}


def test_the_catalogue_is_explained(ureg: Any) -> None:
    assert len(ureg("kinds", "-o", "name").stdout.splitlines()) == 42
    assert len(ureg("classes", "-o", "name").stdout.splitlines()) >= 60
    assert "ApiService" in ureg("classes", "service").stdout
    shown = ureg("explain", "service").stdout
    assert "port" in shown
    assert "Example" in shown
    assert "maximum: 65535" in ureg("explain", "service.port").stdout
    assert "did you mean 'port'" in ureg("explain", "service.prt", code=3).stderr
    assert ureg("explain", "host.interfaces.mac").stdout.startswith("host.interfaces.mac: string")
    assert json.loads(ureg("explain", "alias", "-o", "json").stdout)["schema"]["type"] == "object"


def test_bytes_that_are_no_text_are_one_clear_line(ureg: Any) -> None:
    done = ureg.run((os.fsdecode(b"get"), "alias", os.fsdecode(b"a\xff")), b"", {})
    assert done.returncode == 6
    assert "UTF-8" in done.stderr


def test_a_reader_that_goes_away_is_met_quietly(offline: Any) -> None:
    lines = [json.dumps({"kind": "alias", "name": f"a{n}", "spec": {"command": "x" * 500}}) for n in range(1000)]
    offline("apply", "-f", "-", stdin="\n".join(lines))
    for words in (["export"], ["get", "alias"], ["get", "alias", "-o", "yaml"]):
        process = offline.start(*words)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        process.stderr.close()
        assert process.wait(30) in (0, 141)


def test_on_a_terminal_of_forty_columns_only_a_long_name_is_longer(offline: Any) -> None:
    offline("set", "alias", "日本" * 20, "command=" + "w" * 300)
    offline("set", "alias", "e", 'command:="\\u001b[31m\\u202e"')
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with subprocess.Popen(
        [*UREG, "get", "alias"], env=offline.environ, stdin=subprocess.DEVNULL, stdout=side
    ) as process:
        os.close(side)
        shown = b""
        while True:
            try:
                piece = os.read(main, 65536)
            except OSError:  # Linux says so when the last writer has gone
                break
            if not piece:
                break
            shown += piece
        assert process.wait(30) == 0
    os.close(main)
    lines = shown.decode().splitlines()
    assert len(lines) == 3
    (long,) = [line for line in lines if "日本" in line]
    assert "日本" * 20 in long, "a name can be pasted"
    assert all(len(line) <= 40 for line in lines if line != long)
    assert "\x1b" not in shown.decode()


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "en_US.ISO-8859-1"])
def test_output_is_utf8_in_every_locale(offline: Any, locale: str) -> None:
    offline("set", "alias", "🦊", "command=é", LC_ALL=locale, PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    shown = offline("get", "alias", "-o", "tsv", LC_ALL=locale, PYTHONCOERCECLOCALE="0", PYTHONUTF8="0").stdout
    assert shown.startswith("🦊\t")


def test_what_cannot_be_a_name_or_a_value_is_one_clear_line(ureg: Any) -> None:
    assert "the name is empty" in ureg("set", "alias", "", "command=x", code=6).stderr
    done = ureg("set", "alias", "x", b"command=\xff", code=6)
    (line,) = done.stderr.splitlines()
    assert "'command' is given a value that is not UTF-8" in line


def test_the_catalogue_needs_no_registry(bare: Any) -> None:
    kinds = bare.json("kinds")
    assert (len(kinds), {each["records"] for each in kinds}) == (42, {None})
    assert bare.json("explain", "alias")["schema"]
    assert {each["kind"] for each in bare.json("classes", "service")} == {"service"}
    assert "did you mean" in bare("explain", "aliass", code=3).stderr
    classes = bare.json("classes")
    assert not bare.home.exists()
    bare("init")
    assert bare.json("classes") == classes
    assert [{**each, "records": None} for each in bare.json("kinds")] == kinds


def test_init_below_a_daemon_makes_nothing(online: Any) -> None:
    token = online.home / "config" / "admin.token"
    token.unlink()
    done = online("init")
    assert "created" not in done.stdout
    assert "there already" in done.stdout
    assert "a daemon runs, so nothing was made" in done.stderr
    assert not token.exists()
    online("down")
    done = online("init")
    assert done.stdout.startswith("created config/admin.token\n")
    assert "there already" in done.stdout, "a new token is no new registry"
    token.write_text("ur_\n")
    assert "home/token" in (said := online("doctor", "--all", code=1).stdout)
    assert f"rm {token}; ureg down; ureg up" in said
    token.write_text("")
    online("init")
    assert token.read_text().startswith("ur_"), "an empty one is none"


def test_apply_of_many_tells_their_numbers(offline: Any) -> None:
    lines = "".join(f'{{"kind": "alias", "name": "a{n}", "spec": {{"command": "x"}}}}\n' for n in range(21))
    done = offline("apply", "-f", "-", stdin=lines)
    assert (done.stdout, done.stderr) == ("", "21 created, revision 1\n")
    assert offline("apply", "-f", "-", "-o", "ndjson", stdin=lines).stdout.count('"unchanged"') == 21
    changed = lines.replace('"x"', '"y"')
    done = offline("apply", "-f", "-", "-v", stdin=changed)
    assert (len(done.stdout.splitlines()), done.stderr) == (21, "21 updated, revision 2\n")


def test_what_was_set_is_told_without_steering_the_terminal(offline: Any) -> None:
    name = "a\u202eb"
    assert offline("set", "alias", name, "command=x").stdout == "alias/default/a\\u202eb created, revision 1\n"
    assert offline("get", "alias", "-o", "name").stdout == f"alias/{name}\n"
    assert offline("delete", "alias", name).stdout.startswith("alias/default/a\\u202eb deleted")
