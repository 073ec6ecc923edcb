"""sh, zsh, CLI, Python and HTTP: the same record, the same line of the log, the same event and the same exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fronts import ROOT, SHELLS, Done, Home, shell_command

from universal_registry.client.errors import error_from
from universal_registry.client.http import Client, record_path
from universal_registry.kernel.errors import RegistryError

NAMES = [
    "gs", "it's \"so\"",
    "$(touch pwned)", "`touch pwned`", "x; touch pwned", "-rf", "\U0001f98a\u200d\U0001f525", "\u202eabc",
    "two words", "*", "\\t%s", "@scope/pkg", "..", "-", "g++", "a=b&c", "\U0001f98a" * 63,
]  # fmt: skip
VALUES = [
    "git status -sb",
    "line\nline\n",
    "$(touch pwned)",
    "-n",
    "'\"\\ \u202e\U0001f98a",
    "",
    "a&b=c%20+d",
    "%%++&&%",
    "null",
    "x" * 100_000,
]
DATA = ['{"n": [1, "it\'s"]}', "plain words", "$(touch pwned)", "-n", "\U0001f98a \u202e\n", "{no json", '"1"', "12"]
FRONTS = ("http", "python", "cli", *SHELLS, "zsh functions")


class Front:
    """A way in. Each call gives the exit code that it has, or would have."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home = home
        self.folder = folder

    def put(self, name: str, value: str) -> int:
        raise NotImplementedError

    def put_file(self, name: str, file: Path) -> int:
        raise NotImplementedError

    def put_port(self, kind: str, name: str, port: str) -> int:
        raise NotImplementedError

    def get(self, name: str) -> int:
        raise NotImplementedError

    def send(self, source: str, target: str, data: str) -> int:
        raise NotImplementedError


class Http(Front):
    def _code(self, answer: tuple[int, Any]) -> int:
        status, body = answer
        if status < 400:
            return 0
        return error_from(status, "application/problem+json", json.dumps(body).encode()).exit_code

    def put(self, name: str, value: str) -> int:
        body = {"spec": {"command": value}}
        return self._code(self.home.http("PATCH", record_path("default", "alias", name), body))

    def put_file(self, name: str, file: Path) -> int:
        return self.put(name, file.read_text())

    def put_port(self, kind: str, name: str, port: str) -> int:
        value: Any = int(port) if port.isdigit() else port
        return self._code(self.home.http("PATCH", record_path("default", kind, name), {"spec": {"port": value}}))

    def get(self, name: str) -> int:
        return self._code(self.home.http("GET", record_path("default", "alias", name)))

    def send(self, source: str, target: str, data: str) -> int:
        try:
            value = json.loads(data)
        except ValueError:
            value = data
        return self._code(
            self.home.http("POST", "/v1/-/propagate", {"source": source, "target": target, "data": value})
        )


class Python(Http):
    def _code(self, answer: tuple[int, Any]) -> int:
        raise AssertionError("it has errors")

    def _asked(self, method: str, path: str, body: Any = None) -> int:
        with Client(self.home.socket) as client:
            try:
                client.request(method, path, json=body)
            except RegistryError as error:
                return error.exit_code
        return 0

    def put(self, name: str, value: str) -> int:
        return self._asked("PATCH", record_path("default", "alias", name), {"spec": {"command": value}})

    def put_port(self, kind: str, name: str, port: str) -> int:
        value: Any = int(port) if port.isdigit() else port
        return self._asked("PATCH", record_path("default", kind, name), {"spec": {"port": value}})

    def get(self, name: str) -> int:
        return self._asked("GET", record_path("default", "alias", name))

    def send(self, source: str, target: str, data: str) -> int:
        try:
            value = json.loads(data)
        except ValueError:
            value = data
        return self._asked("POST", "/v1/-/propagate", {"source": source, "target": target, "data": value})


class Commands(Front):
    """`ureg`, and whatever takes its words."""

    def run(self, *words: str, stdin: str = "") -> Done:
        return self.home.ureg(*words, stdin=stdin)

    def put(self, name: str, value: str) -> int:
        return self.run("set", *dashes(name), "alias", name, f"command={value}").code

    def put_file(self, name: str, file: Path) -> int:
        return self.run("set", "alias", name, f"command=@{file}").code

    def put_port(self, kind: str, name: str, port: str) -> int:
        return self.run("set", kind, name, f"port={port}").code

    def get(self, name: str) -> int:
        return self.run("get", *dashes(name), "alias", name).code

    def send(self, source: str, target: str, data: str) -> int:
        return self.run("unidirectional", *dashes(data), source, target, data).code


class Sh(Commands):
    shell: list[str]

    def run(self, *words: str, stdin: str = "") -> Done:
        return self.home.sh(self.shell, *words, stdin=stdin)


class ZshFunctions(Front):
    """The functions, in a shell that has sourced them; words come as its arguments, so that none is read as code."""

    def run(self, *words: str) -> int:
        source = f'source {ROOT}/universal_registry_integration.zsh || exit 99; "$@"'
        (shell,) = shell_command("zsh") or ["zsh"]
        return self.home.run(shell, "-f", "-c", source, "zsh", *words).code

    def put(self, name: str, value: str) -> int:
        return self.run("registry_put", *dashes(name), "alias", name, f"command={value}")

    def put_file(self, name: str, file: Path) -> int:
        read = f'source {ROOT}/universal_registry_integration.zsh || exit 99; registry_put alias "$1" command="$(<$2)"'
        (shell,) = shell_command("zsh") or ["zsh"]
        return self.home.run(shell, "-f", "-c", read, "zsh", name, file).code

    def put_port(self, kind: str, name: str, port: str) -> int:
        return self.run("registry_put", kind, name, f"port={port}")

    def get(self, name: str) -> int:
        return self.run("registry_get", *dashes(name), "alias", name)

    def send(self, source: str, target: str, data: str) -> int:
        if self.run("whence", "registry_propagation_unidirectional") != 0:
            pytest.skip("there is no registry_propagation_unidirectional yet")
        return self.run("registry_propagation_unidirectional", *dashes(data), source, target, data)


def dashes(name: str) -> tuple[str, ...]:
    """What keeps a name from being read as an option."""
    return ("--",) if name.startswith("-") else ()


@pytest.fixture(params=FRONTS, scope="module")
def front(request: pytest.FixtureRequest, home: Home, tmp_path_factory: pytest.TempPathFactory) -> Front:
    folder = tmp_path_factory.mktemp("front")
    kinds: dict[str, type[Front]] = {
        "http": Http, "python": Python, "cli": Commands, "zsh functions": ZshFunctions,
    }  # fmt: skip
    name = "zsh" if request.param == "zsh functions" else request.param
    shell = shell_command(name) if name in SHELLS else []
    if shell is None:
        pytest.skip(f"{name} is not installed")
    made = kinds.get(request.param, Sh)(home, folder)
    if isinstance(made, Sh):
        made.shell = shell
    return made


def gone(home: Home, name: str) -> None:
    status, _ = home.http(
        "DELETE", f"{record_path('default', 'alias', name)}{'&' if name in ('..', '-') else '?'}missing_ok=true"
    )
    assert status == 200


def expected(name: str, value: str) -> dict[str, Any]:
    record = {"kind": "alias", "namespace": "default", "name": name, "classification": "ZshAlias"}
    return {
        "op": "put", "kind": "alias", "namespace": "default", "name": name, "actor": Home.actor(),
        "changed": ["classification", "spec.command", "lifecycle"],
        "record": {**record, "spec": {"command": value}},
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=lambda each: ascii(each)[:30])
def test_the_same_record_and_line_for_every_name(front: Front, home: Home, name: str) -> None:
    gone(home, name)
    value = f":{name}"  # `-` and `@FILE` stand for what is there
    assert front.put(name, value) == 0
    assert home.last_line() == expected(name, value)
    assert front.get(name) == 0
    assert front.put(name, f"{value} ") == 0
    assert home.last_line()["changed"] == ["spec.command"]
    assert not list(home.folder.rglob("pwned"))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:30])
def test_the_same_record_for_every_value(front: Front, home: Home, value: str) -> None:
    gone(home, "gs")
    assert front.put("gs", value) == 0
    assert home.last_line() == expected("gs", value)
    assert not list(home.folder.rglob("pwned"))


@pytest.mark.parametrize("data", DATA, ids=lambda each: ascii(each)[:30])
def test_the_same_event(front: Front, home: Home, data: str) -> None:
    home.http("PUT", "/v1/default/alias/source", {"spec": {"command": "x"}})
    assert front.send("alias/source", "nowhere", data) == 0
    line = home.last_line()
    try:
        value = json.loads(data)
    except ValueError:
        value = data
    assert (line["op"], line["kind"], line["name"], line["payload"]) == ("event", "alias", "source", value)
    assert line["audience"] == ["system/nowhere"]
    assert not list(home.folder.rglob("pwned"))


def test_the_same_exit_codes(front: Front, home: Home) -> None:
    gone(home, "nothing")
    found = {
        "no such record": front.get("nothing"),
        "wrong type": front.put_port("service", "pay", "x"),
        "out of range": front.put_port("service", "pay", "99999"),
        "unknown kind": front.put_port("sevrice", "pay", "1"),
        "name too long": front.put("x" * 254, "1"),
        "control character": front.put("a\tb", "1"),
    }
    assert found == {
        "no such record": 3, "wrong type": 6, "out of range": 6, "unknown kind": 3, "name too long": 6,
        "control character": 6,
    }  # fmt: skip


def test_the_same_exit_codes_of_events(front: Front, home: Home) -> None:
    for namespace in ("default", "other"):
        home.http("PUT", f"/v1/{namespace}/alias/twice", {"spec": {"command": "x"}})
    assert front.send("alias/twice", "t", '{"a": 1}') == 2, "it is ambiguous"
    assert front.send("alias/source", "x" * 254, '{"a": 1}') == 6, "the name is too long"


def test_a_value_of_a_megabyte_is_refused_alike_and_a_large_one_taken(front: Front, home: Home) -> None:
    gone(home, "large")
    file = front.folder / "large"
    file.write_text("it's \U0001f98a&+% " * 16_000 + "%")
    assert front.put_file("large", file) == 0
    assert home.last_line()["record"]["spec"]["command"] == file.read_text()
    file.write_text("x" * (1 << 20))
    assert front.put_file("large", file) == 6
    assert home.last_line()["record"]["spec"]["command"] != file.read_text()
