"""What is hostile goes in through every front and comes out of every other one unharmed, or is refused in one clear
line and leaves nothing behind: over TCP, the Unix socket and the command line, with a daemon and without, on both
engines."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from universal_registry.client.http import Client, record_path
from universal_registry.kernel.errors import RegistryError

ENGINES = pytest.mark.parametrize("bare", ["sqlite", "postgresql"], indirect=True)

NAMES = [
    "g++", "@scope/pkg", "..", ".", "-", "--", "-rf", "--help", "[", "]", "*", "a?b", "?x=1&y=2", "#frag", "a b", "a+b",
    "a,b", "a=b", "a%2Fb", "%00", "%", "/usr/bin", "//", "10.0.0.0/8", "HTTP_PROXY", "http_proxy", "back\\slash", "~",
    "x; touch pwned", "$(touch pwned)", "`touch pwned`", "${HOME}", "'\"", "\"", "';DROP TABLE aliases;--", "null",
    "true",
    "naïve", "\u202eabc", "a\u200bb", "\U0001f980" * 63, "x" * 253, "{{7*7}}", "%s%n", "@file", ":=1", "name:", "- a",
    "\ufeffbom", "<script>alert(1)</script>", "\u0130\u0131", "1e309", "0x7f",
]  # fmt: skip

BAD_NAMES = ["", " a", "a ", "a\nb", "a\tb", "a\x00b", "\x1b[31m", "\u2028", "x" * 254, "\U0001f980" * 64]

GOOD = '{"kind":"alias","name":"x","spec":{"command":"true"}}'
BAD_DOCUMENTS = [
    "", "{", "nul", "\x00", '{"kind":"alias","name":"x","spec":{"command":"a"}}}', "[" * 100_000, "{" * 100_000,
    '{"kind":"alias","name":"x","spec":{"a":' + '{"a":' * 65 + "1" + "}" * 65 + "}}",
    '{"kind":"alias","name":"x","spec":{"command":"a","command":"b"}}',
    '{"kind":"alias","kind":"alias","name":"x","spec":{"command":"a"}}',
    '{"kind":"alias","name":"x","spec":{"command":"\\u0000"}}',
    '{"kind":"alias","name":"x","spec":{"command":"\\ud800"}}',
    '{"kind":"alias","name":"x","spec":{"command":NaN}}', '{"kind":"alias","name":"x","spec":{"command":1}}',
    '{"kind":"alias","name":"x","spec":{"n":9007199254740993,"command":"a"}}', '{"kind":"alias","name":"x","spec":[]}',
    '{"kind":"alias","name":"x","spec":null}', '{"kind":"alias","name":["x"],"spec":{"command":"a"}}',
    '{"kind":"alias","name":1,"spec":{"command":"a"}}', '{"kind":["alias"],"name":"x","spec":{"command":"a"}}',
    '{"kind":"nothing","name":"x","spec":{}}', '{"kind":"alias","name":"x","namespace":"../..","spec":{"command":"a"}}',
    '{"kind":"alias","name":"x","spec":{"command":"a"},"nonsense":1}', '"text"', "1", "null", "[[]]", "[null]",
    '{"kind":"alias","name":"x","labels":{"a":1},"spec":{"command":"a"}}',
    '{"kind":"alias","name":"x","classification":"NoSuch","spec":{"command":"a"}}',
    '{"kind":"alias","name":"x","spec":{"command":"' + "y" * (1 << 20) + '"}}',
]  # fmt: skip
BAD_YAML = [
    "a: &a [x, x]\nb: [*a, *a]\n", "!!python/object/apply:os.system [\'touch pwned\']",
    "kind: alias\nname: x\nkind: alias\n",
    "kind: alias\nname: x\nspec: {command: \"\\ud800\"}\n", "? [a]\n: b\n", "\tkind: alias", "kind: alias\n name: x",
]  # fmt: skip
ONE_LINE = re.compile(r"\A[^\n]{1,600}\n\Z")


class Front(NamedTuple):
    """A way in: write a record, read its command, remove it."""

    put: Callable[[str, str], None]
    get: Callable[[str], str]
    delete: Callable[[str], None]


def over(request: Callable[[str, str, Any], Any]) -> Front:
    def path(name: str) -> str:
        return record_path("default", "aliases", name)

    return Front(
        lambda name, command: request("PUT", path(name), {"spec": {"command": command}}),
        lambda name: str(request("GET", path(name), None)["spec"]["command"]),
        lambda name: request("DELETE", path(name), None),
    )


def on_the_socket(ureg: Any) -> Front:
    client = Client((ureg.home / "run" / "address").read_text().splitlines()[0])
    return over(lambda method, where, body: client.request(method, where, json=body).json())


def tcp(ureg: Any, method: str, where: str, body: bytes | None, content_type: str) -> tuple[int, bytes]:
    """One request as a stranger with the token makes it."""
    address = (ureg.home / "run" / "address").read_text().splitlines()[1]
    token = (ureg.home / "config" / "admin.token").read_text().strip()
    connection = http.client.HTTPConnection(address, timeout=30)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
    connection.request(method, where, body, headers)
    with connection.getresponse() as answer:
        found = answer.status, answer.read()
    connection.close()
    return found


def on_tcp(ureg: Any) -> Front:
    def request(method: str, where: str, body: Any) -> Any:
        status, answer = tcp(
            ureg, method, where, None if body is None else json.dumps(body).encode(), "application/json"
        )
        assert status in (200, 201), answer
        return json.loads(answer)

    return over(request)


def on_the_command_line(ureg: Any) -> Front:
    return Front(
        lambda name, command: ureg("set", "alias", "--", name, "command:=" + json.dumps(command)),
        lambda name: str(json.loads(ureg("get", "alias", "-o", "json", "--", name).stdout)["spec"]["command"]),
        lambda name: ureg("delete", "alias", "--", name),
    )


def by_apply(ureg: Any) -> Front:
    """Documents on standard input; read from an export."""

    def put(name: str, command: str) -> None:
        ureg("apply", "-f", "-", stdin=json.dumps({"kind": "alias", "name": name, "spec": {"command": command}}))

    def get(name: str) -> str:
        found = {each["name"]: each for each in map(json.loads, ureg("export").stdout.splitlines())}
        return str(found[name]["spec"]["command"])

    return Front(put, get, on_the_command_line(ureg).delete)


@ENGINES
def test_what_one_front_writes_all_others_read(online: Any) -> None:
    fronts = [on_the_socket(online), on_tcp(online), on_the_command_line(online), by_apply(online)]
    for place, name in enumerate(NAMES):
        writer, reader, other = (fronts[(place + step) % len(fronts)] for step in range(3))
        writer.put(name, name)
        assert (reader.get(name), other.get(name)) == (name, name)
    exported = online("export").stdout
    assert sorted(json.loads(line)["name"] for line in exported.splitlines()) == sorted(NAMES)
    for place, name in enumerate(NAMES):
        fronts[(place + 3) % len(fronts)].delete(name)
    assert online("export").stdout == ""
    online("import", "-", stdin=exported)
    assert online("export").stdout == exported
    assert not list(online.folder.rglob("pwned"))


@ENGINES
def test_the_command_line_alone_does_the_same(offline: Any) -> None:
    line = on_the_command_line(offline)
    documents = [json.dumps({"kind": "alias", "name": name, "spec": {"command": name}}) for name in NAMES]
    offline("apply", "-f", "-", stdin="\n".join(documents))
    for name in NAMES[::4]:
        assert line.get(name) == name
        line.put(name, name + "!")
        line.delete(name)
    assert {item["name"] for item in offline.json("get", "alias")} == set(NAMES) - set(NAMES[::4])
    assert not list(offline.folder.rglob("pwned"))


@ENGINES
def test_names_that_cannot_be_are_refused_by_every_front(online: Any) -> None:
    before = online.json("status")["revision"]
    socket = on_the_socket(online)
    for name in BAD_NAMES:
        with pytest.raises(RegistryError) as caught:
            socket.put(name, "x")
        assert caught.value.status in (400, 422), name
        document = {"kind": "alias", "name": name, "spec": {"command": "x"}}
        body = json.dumps({"operations": [{"op": "put", **document}]}).encode()
        assert tcp(online, "POST", "/v1/batch", body, "application/json")[0] in (400, 422), name
        refused(online, "apply", "-f", "-", stdin=json.dumps(document))
        if "\x00" not in name:  # no program can be given one
            refused(online, "set", "alias", "--", name, "command=x")
    assert online.json("status")["revision"] == before


def refused(ureg: Any, *words: str, stdin: str = "") -> None:
    """It fails as documented, in one line, whatever was sent."""
    done = ureg.run(words, stdin.encode("utf-8", "surrogatepass"), {})
    assert done.returncode in (2, 3, 6), (words, stdin[:80], done)
    assert ONE_LINE.match(done.stderr), (words, stdin[:80], done.stderr)
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr


@ENGINES
def test_documents_that_cannot_be_are_refused_by_every_front(online: Any) -> None:
    before = online.json("status")["revision"]
    for text in BAD_DOCUMENTS:
        for method, where, content_type in (
            ("PUT", "/v1/default/aliases/x", "application/json"),
            ("PATCH", "/v1/default/aliases/x", "application/merge-patch+json"),
            ("POST", "/v1/apply", "application/json"),
            ("POST", "/v1/apply", "application/x-ndjson"),
            ("POST", "/v1/batch", "application/json"),
        ):
            if content_type == "application/x-ndjson" and not text:
                continue  # no lines: nothing to do
            status, answer = tcp(online, method, where, text.encode(), content_type)
            told = json.loads(answer)
            assert 400 <= status < 500, (text[:80], where, told)
            assert told["detail"], text[:80]
        if text:
            refused(online, "apply", "-f", "-", stdin=text)
            refused(online, "import", "-", stdin=text)
    for text in BAD_YAML:
        assert 400 <= tcp(online, "POST", "/v1/apply", text.encode(), "application/yaml")[0] < 500, text
        online.write("bad.yaml", text)
        refused(online, "apply", "-f", "bad.yaml")
    assert online.json("status")["revision"] == before
    assert tcp(online, "PUT", "/v1/default/aliases/x", b'{"spec":{"command":"true"}}', "application/json")[0] == 201
    assert not list(online.folder.rglob("pwned"))


@ENGINES
def test_one_bad_document_among_good_ones_takes_all_of_them_back(offline: Any) -> None:
    good = [json.dumps({"kind": "alias", "name": f"n{number}", "spec": {"command": "x"}}) for number in range(20)]
    for place in (0, 10, 19):
        for bad in (BAD_DOCUMENTS[8], BAD_DOCUMENTS[12], BAD_DOCUMENTS[20], GOOD[:-1]):
            lines = [*good[:place], bad, *good[place:]]
            refused(offline, "apply", "-f", "-", stdin="\n".join(lines))
            refused(offline, "import", "-", stdin="\n".join(lines))
    assert offline("export").stdout == ""


def test_what_is_too_large_is_told_the_one_limit_that_it_passes(offline: Any) -> None:
    def file(size: int, before: str = "", after: str = "") -> str:
        return offline.write(f"large-{size}", before + "x" * size + after)

    start, end = '{"kind": "alias", "name": "x", "spec": {"command": "', '"}}'
    for words, told in {
        ("set", "alias", "x", f"command=@{file(256 << 10)}"): "",
        ("set", "alias", "x", f"command=@{file((256 << 10) + 1)}"): "longer than one text may be (at most 256 KiB)",
        ("apply", "-f", file(300_000, start, end)): "longer than one text may be (at most 256 KiB)",
        ("set", "alias", "x", f"command=@{file((1 << 20) + 1)}"): "larger than 1 MiB (the most that one record takes",
        ("set", "alias", "x", "--json", f"@{file((1 << 20) + 2)}"): "larger than 1 MiB (the most that one record takes",
        ("patch", "alias", "x", f"@{file((1 << 20) + 3)}"): "larger than 1 MiB (the most that one record takes",
        ("apply", "-f", file((16 << 20) + 1)): "larger than 16 MiB (split it)",
        ("import", file((16 << 20) + 2)): "larger than 16 MiB (split it)",
    }.items():
        done = offline(*words, code=6 if told else 0)
        assert told in done.stderr
        assert "bytes" not in done.stderr
