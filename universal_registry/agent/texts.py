"""What a record is in a file: a line of a shell, of ssh or of a hosts file, or the whole text. Pure.

Nothing here runs anything. What a shell reads is quoted, so that only an alias and the body of a function are code:
whoever selects those lets the registry say what his shell runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.visible import escaped

Item = Mapping[str, Any]
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*")
_ALIAS = re.compile(r"[A-Za-z0-9_.:,@%+!][A-Za-z0-9_.:,@%+!-]*")
_ANY_ALIAS = re.compile(r"[^\s'\"\\$`&|;<>(){}=#*?~\[\]-][^\s'\"\\$`&|;<>(){}=#*?~\[\]]*")
_WORD = re.compile(r"[^\s#'\"\\=\x00-\x1f\x7f]+")
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_PATTERN = set("*?!")
_SECTIONS = ("host", "match", "include")
_SHELLS = ("", "sh", "zsh", "bash")
_FIELDS = (("hostname", "HostName"), ("port", "Port"), ("user", "User"), ("identity_file", "IdentityFile"))
_ONLY_IN = {"zsh": "ZSH_VERSION", "bash": "BASH_VERSION"}


def text_of(item: Item) -> str:
    """The text of one record. Raises Invalid when it cannot be written as what it means: it is for another shell, holds
    a control character, or is a secret, which no watcher is sent."""
    writer = _WRITERS.get(item["kind"])
    if writer is None:
        raise Invalid(f"records of kind {item['kind']} are not written into files")
    text = writer(item["name"], item["spec"], item["classification"])
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise Invalid("it cannot be written as UTF-8")
    return text


def order_of(item: Item) -> tuple[Any, ...]:
    """Where a record comes in its file. Entries of PATH are put before those that are there, so the last is first."""
    priority = item["spec"].get("priority")
    place = -priority if item["kind"] == "path" and isinstance(priority, int) else 0
    return (item["kind"] != "env_var", item["kind"], place, item["namespace"], item["name"])


def quoted(text: str) -> str:
    """One word of any POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def _alias(name: str, spec: Mapping[str, Any], classification: str) -> str:
    shell = _shell(spec)
    if classification in ("FishAlias", "GitAlias"):
        raise Invalid("it is an alias of fish or git, and this is a file for sh, bash and zsh")
    command = _plain(_text(spec, "command"), "its command", lines=True)
    flag = "-g " if spec.get("global") or classification == "ZshGlobalAlias" else ""
    flag = "-s " if spec.get("suffix") or classification == "ZshSuffixAlias" else flag
    only = "zsh" if flag else "bash" if classification == "BashAlias" else shell
    if not (_ANY_ALIAS if only == "zsh" else _ALIAS).fullmatch(name):
        raise Invalid(f"no alias can be called {escaped(name)[:60]!r} in a shell")
    return _for(only, f"alias {flag}{quoted(name)}={quoted(command)}")


def _function(name: str, spec: Mapping[str, Any], classification: str) -> str:
    shell = _shell(spec)
    only = {"ZshFunction": "zsh", "BashFunction": "bash"}.get(classification, shell)
    if not _FUNCTION.fullmatch(name):
        raise Invalid(f"no function can be called {escaped(name)[:60]!r} in every shell")
    body = _plain(_text(spec, "body"), "its body", lines=True)
    if only not in _ONLY_IN:
        return f"{name}() {{\n{body}\n}}\n"
    # By eval, so that a shell which does not know what stands in it need not read it.
    return _for(only, f"eval {quoted(f'{name}() {{' + chr(10) + body + chr(10) + '}')}")


def _env_var(name: str, spec: Mapping[str, Any], _: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise Invalid(f"no shell variable can be called {escaped(name)[:60]!r}")
    if spec.get("secret_value") is not None:
        raise Invalid(
            "its value is a secret, which is not sent to those who watch", hint="ureg run --env, at the registry"
        )
    value = spec.get("value")
    if value is None:
        raise Invalid("it has no value")
    text = value if isinstance(value, str) else json.dumps(value)
    export = "export " if spec.get("exported", True) else ""
    return f"{export}{name}={quoted(_plain(text, 'its value', lines=True))}"


def _path(_name: str, spec: Mapping[str, Any], classification: str) -> str:
    if classification != "PathEntry":
        raise Invalid("it is a bookmark, no entry of PATH")
    folder = _plain(_text(spec, "path"), "its path")
    if not folder.startswith("/") or ":" in folder:
        raise Invalid("PATH takes whole paths without a colon")
    return f'case ":$PATH:" in *{quoted(":" + folder + ":")}*) ;; *) PATH={quoted(folder)}:$PATH ;; esac'


def _host_alias(name: str, spec: Mapping[str, Any], classification: str) -> str:
    if classification == "HostsFileAlias":
        names = [spec.get("hostname") or name, *_list(spec, "aliases")]
        return " ".join(_word(each, "a name") for each in [_text(spec, "address"), *names])
    if classification != "SshHostAlias":
        raise Invalid("it stands neither in a file of ssh nor in a hosts file")
    names = [_word(each, "a name") for each in [name, *_list(spec, "aliases")]]
    if any(set(each) & _PATTERN for each in names):
        raise Invalid("a name of it is a pattern, which would hold for other hosts too")
    lines = [f"Host {' '.join(names)}"]
    given = {"hostname": spec.get("hostname") or spec.get("address"), **{key: spec.get(key) for key, _ in _FIELDS[1:]}}
    lines += [f"  {word} {_word(given[key], key)}" for key, word in _FIELDS if given[key] is not None]
    options = spec.get("options") or {}
    if not isinstance(options, dict):
        raise Invalid("its options are no object")
    for option, value in sorted(options.items()):
        if not _OPTION.fullmatch(option) or not isinstance(value, str | int | float):
            raise Invalid(f"{escaped(str(option))[:60]!r} is no option of ssh with one value")
        if option.lower() in _SECTIONS:
            raise Invalid(f"the option {option} would reach other hosts")
        shown = ("no", "yes")[value] if isinstance(value, bool) else str(value)
        lines.append(f"  {option} {_plain(shown, 'an option')}")
    return "\n".join(lines)


def _config_file(_name: str, spec: Mapping[str, Any], _classification: str) -> str:
    content = spec.get("content")
    if isinstance(content, str):
        if "\0" in content:
            raise Invalid("its content holds a NUL character")
        return content
    if spec.get("data") is not None and spec.get("format") == "json":
        return json.dumps(spec["data"], indent=2, ensure_ascii=False)
    raise Invalid("it has no content", hint="set content, or data with format=json")


_WRITERS: Mapping[str, Callable[[str, Mapping[str, Any], str], str]] = {
    "alias": _alias,
    "config_file": _config_file,
    "env_var": _env_var,
    "function": _function,
    "host_alias": _host_alias,
    "path": _path,
}
WRITTEN = frozenset(_WRITERS)
"""The kinds that are written into files."""


def _shell(spec: Mapping[str, Any]) -> str:
    shell = spec.get("shell") or ""
    if shell not in _SHELLS:
        raise Invalid(f"it is for {escaped(str(shell))[:40]}, and this is a file for sh, bash and zsh")
    return str(shell)


def _for(shell: str, line: str) -> str:
    variable = _ONLY_IN.get(shell)
    return line if variable is None else f'[ -z "${{{variable}-}}" ] || {line}'


def _text(spec: Mapping[str, Any], field: str) -> str:
    value = spec.get(field)
    if not isinstance(value, str) or not value:
        raise Invalid(f"it has no {field}")
    return value


def _list(spec: Mapping[str, Any], field: str) -> list[Any]:
    value = spec.get(field) or []
    if not isinstance(value, list):
        raise Invalid(f"its {field} are no list")
    return value


def _plain(text: str, what: str, *, lines: bool = False) -> str:
    """The text, if nothing in it but tabs (and ends of lines, with `lines`) steers a terminal or ends what it is in."""
    allowed = "\t\n" if lines else "\t"
    if any((ord(char) < 0x20 and char not in allowed) or ord(char) == 0x7F for char in text):
        raise Invalid(f"{what} holds a control character: {escaped(text)[:60]!r}")
    return text


def _word(value: Any, what: str) -> str:
    text = str(value)
    if not _WORD.fullmatch(text):
        raise Invalid(f"{what} is not one plain word: {escaped(text)[:60]!r}")
    return text
