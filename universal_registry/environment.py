"""The only reader of the environment and of `config.py`: settings in layers, each value with its origin.

Layers, the later wins: defaults, the literals of `config.py` in the home, the environment, flags. A setting `NAME` is
read from `REGISTRY_NAME`, one of `retry` from `REGISTRY_RETRY_NAME`. Every value is checked here, once, so that nothing
behind this module meets a wrong one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NamedTuple

from universal_registry.kernel.errors import SettingError
from universal_registry.kernel.settings import GROUPS, PostgresSettings, Settings

PREFIX = "REGISTRY_"
LOG_LEVELS = ("debug", "info", "warning", "error")
# Variables of ours that are no settings: launchers, tests and parts that are not built yet read or will read them.
OTHER_VARIABLES = (
    "CONTEXT", "RUN_DIR", "DEBUG", "PYTHON", "LAUNCHED", "DB_HOST", "DB_NAME", "DB_USER", "DB_PASSWORD", "DB_PORT",
)  # fmt: skip
_OWN_WAY = (*(prefix.rstrip(".") for prefix, _, _ in GROUPS), "database")  # settings that are several values each
_DATABASE = ("HOST", "NAME", "USER", "PASSWORD", "PORT")
_CREDENTIAL = "encryption.key"  # as systemd's LoadCredential= names it
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_LISTEN = r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):([0-9]{1,5})"  # compiled when it is needed: `get` starts without it


class Given(NamedTuple):
    """A value as a layer gives it. `origin` is `config.py:12`, `REGISTRY_LISTEN` or `--listen`."""

    value: object
    origin: str


class Loaded(NamedTuple):
    """The settings, where each comes from (`home`, `listen`, `retry.max_retries` ... -> origin) and what was odd."""

    settings: Settings
    origins: Mapping[str, str]
    runtime_dir: Path
    warnings: tuple[str, ...] = ()


def load_settings(flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process. `flags`: by setting name, None for those not given. Raises SettingError."""
    return load(flags, environ).settings


def load(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, *, config_file: bool = True
) -> Loaded:
    """As `load_settings`, with the origin of each value. Without `config_file`, `config.py` counts as not there."""
    environ = os.environ if environ is None else environ
    given = {
        name: value if isinstance(value, Given) else Given(value, _flag(name))
        for name, value in (flags or {}).items()
        if value is not None
    }
    database = _database(environ)
    home = find_home(given.get("home"), environ)
    literals, warnings = _read_config(Path(str(home.value)) / "config.py") if config_file else ({}, [])
    layers = {**literals, **_credential(environ), **_from_environment(environ), **given, "home": home}
    warnings += _unknown_variables(environ)
    values, origins = _checked(Settings, "", layers)
    for prefix, _, group in GROUPS:
        of_group, their_origins = _checked(group, prefix, layers)
        values[prefix.rstrip(".")] = group(**of_group)
        origins |= their_origins
    for name in layers.keys() - origins.keys():
        warnings.append(f"{layers[name].origin}: no setting is called {name}{_meant(name, list(origins))}")
    settings = Settings(**values, database=database)
    check_listen(settings, origins)
    return Loaded(
        settings=settings,
        origins=origins | ({"database": PREFIX + "DB_HOST"} if database else {}),
        warnings=tuple(warnings),
        runtime_dir=runtime_dir(environ),
    )


def environment() -> Mapping[str, str]:
    """The environment of this process, for `scan`, which registers it."""
    return os.environ


def child_environment(settings: Settings, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a daemon that this process starts: ours, with home and addresses said outright."""
    environ = os.environ if environ is None else environ
    said = {PREFIX + "HOME": str(settings.home), PREFIX + "LISTEN": settings.listen}
    if settings.socket is not None:
        said[PREFIX + "SOCKET"] = str(settings.socket)
    return {**environ, **said}


def debugging() -> bool:
    """Whether a traceback of our own bugs is wanted (`REGISTRY_DEBUG=1`)."""
    return os.environ.get(PREFIX + "DEBUG", "").lower() in _TRUE


# --- places ---------------------------------------------------------------------------------------------------------


def find_home(flag: Given | None, environ: Mapping[str, str]) -> Given:
    """The home and its origin: flag, REGISTRY_HOME, the checkout, $XDG_DATA_HOME, ~/.local/share."""
    if flag is not None:
        return Given(_absolute(flag, "home", environ), flag.origin)
    if text := environ.get(PREFIX + "HOME", ""):
        return Given(_absolute(Given(text, PREFIX + "HOME"), "home", environ), PREFIX + "HOME")
    root = Path(__file__).resolve().parent.parent
    if (root / "run_registry.sh").is_file() and any(
        (root / mark).is_file() for mark in ("config.py", "pyproject.toml")
    ):
        return Given(root, "the checkout")
    data = environ.get("XDG_DATA_HOME", "")
    if data.startswith("/"):
        return Given(Path(data) / "universal-registry", "XDG_DATA_HOME")
    return Given(_user_home(environ) / ".local" / "share" / "universal-registry", "default")


def runtime_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where a socket goes whose path in the home would be too long for the kernel."""
    environ = os.environ if environ is None else environ
    for name in (PREFIX + "RUN_DIR", "XDG_RUNTIME_DIR", "TMPDIR"):
        if environ.get(name, "").startswith("/"):
            return Path(environ[name])
    return Path("/tmp")  # noqa: S108 - the name below it is hashed and the folder is ours alone


def state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where is kept what must not be restored or copied together with a home."""
    environ = os.environ if environ is None else environ
    state = environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else _user_home(environ) / ".local" / "state"
    return base / "universal-registry"


def _user_home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME", "")
    return Path(home) if home.startswith("/") else Path(os.path.expanduser("~"))


def _absolute(given: Given, name: str, environ: Mapping[str, str], *, relative: bool = False) -> Path:
    text = os.fspath(given.value) if isinstance(given.value, str | Path) else ""
    is_utf8 = text.isascii() or text == text.encode(errors="replace").decode()
    if not text or "\0" in text or not is_utf8:
        wanted = "a folder" if name == "home" else "a path"
        raise _bad(name, given, wanted if is_utf8 else wanted + " whose name is UTF-8")
    if text == "~" or text.startswith("~/"):
        text = str(_user_home(environ)) + text[1:]
    return Path(os.path.normpath(text) if relative else os.path.abspath(text))


# --- layers ---------------------------------------------------------------------------------------------------------


def _setting_names() -> Iterator[tuple[str, str]]:
    """Each setting and its environment variable."""
    for item in fields(Settings):
        if item.name not in _OWN_WAY:
            yield item.name, PREFIX + item.name.upper()
    for prefix, _, group in GROUPS:
        for item in fields(group):
            yield prefix + item.name, PREFIX + (prefix + item.name).replace(".", "_").upper()


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    found = {}
    for name, variable in _setting_names():
        text = environ.get(variable)
        # An empty variable is an unset one, as shells have it; but no TCP address is a choice.
        if text is not None and (text or name == "listen"):
            found[name] = Given(text, variable)
    return found


def _credential(environ: Mapping[str, str]) -> dict[str, Given]:
    """The key that systemd hands to a service by `LoadCredential=encryption.key:...`."""
    file = Path(environ.get("CREDENTIALS_DIRECTORY", "")) / _CREDENTIAL
    if not (file.is_absolute() and file.exists()):
        return {}
    return {"encryption.key_file": Given(str(file), "CREDENTIALS_DIRECTORY")}


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = {variable for _, variable in _setting_names()} | {PREFIX + name for name in OTHER_VARIABLES}
    return [
        f"{name}: no setting is called so{_meant(name, sorted(known))}"
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known
    ]


def _database(environ: Mapping[str, str]) -> PostgresSettings | None:
    """PostgreSQL, which REGISTRY_DB_* alone ask for; None: SQLite. Never SQLite when any of them is there."""
    given = {name: text for name in _DATABASE if (text := environ.get(f"{PREFIX}DB_{name}"))}
    if not given:
        return None
    if "HOST" not in given:
        shown = ", ".join(f"{PREFIX}DB_{name}" for name in given)
        raise SettingError(
            f"{shown} {'asks' if len(given) == 1 else 'ask'} for PostgreSQL, but {PREFIX}DB_HOST is missing",
            hint=f"set {PREFIX}DB_HOST, or unset {shown} to use SQLite in the home folder",
            setting="database",
        )
    values: dict[str, Any] = {name.lower(): text for name, text in given.items()}
    if "PORT" in given:
        values["port"] = _port(given["PORT"])
    return PostgresSettings(**values)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        raise _bad("database", Given(text, PREFIX + "DB_PORT"), "a port from 1 to 65535")
    return int(text)


def _read_config(path: Path) -> tuple[dict[str, Given], list[str]]:
    """The two dicts of `config.py`, read as literals: the file is never run."""
    try:
        source = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}, []
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} cannot be read: {_why(error)}", setting="config.py") from None
    from universal_registry.kernel.literals import literal_tables

    tables = literal_tables(source, path.name, [name for _, name, _ in GROUPS])
    found, warnings = {}, []
    for prefix, table, group in GROUPS:
        known = [item.name for item in fields(group)]
        for key, literal in tables.get(table, {}).items():
            given = Given(literal.value, f"{path.name}:{literal.line}")
            if key in known:
                found[prefix + key] = given
            else:
                warnings.append(f"{given.origin}: {table} has no key {key}{_meant(key, known)}")
    return found, warnings


# --- checks ---------------------------------------------------------------------------------------------------------


def _checked(settings: type, prefix: str, layers: Mapping[str, Given]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for item in fields(settings):
        name = prefix + item.name
        if name in _OWN_WAY:
            continue
        given = layers.get(name)
        origins[name] = given.origin if given else "default"
        if given:
            values[item.name] = _convert(name, item, given)
    return values, origins


def _convert(name: str, item: Field[Any], given: Given) -> object:
    match str(item.type):
        case "bool":
            return _boolean(name, given)
        case "int" | "float":
            return _number(name, item, given)
        case "str" if name == "log_level":
            return _level(name, given)
        case "str" if item.metadata.get("words"):
            return _word(name, item, given)
        case "str" if name == "encryption.algorithm":
            return _algorithm(name, given)
        case "str" if name.startswith("encryption.key_"):
            return str(_absolute(given, name, {}, relative=True)) if given.value != "" else ""
        case "str" if name == "stream_origins":
            return _origins(name, given)
        case "str" if name == "listen":
            host, port = parse_listen(given.value, given.origin)
            return _joined(host, port) if host else ""
        case _:
            return _absolute(given, name, {}) if not isinstance(given.value, Path) else given.value.absolute()


def _boolean(name: str, given: Given) -> bool:
    if isinstance(given.value, bool):
        return given.value
    word = given.value.strip().lower() if isinstance(given.value, str) else ""
    if word not in _TRUE | _FALSE:
        raise _bad(name, given, "true or false")
    return word in _TRUE


def _number(name: str, item: Field[Any], given: Given) -> int | float:
    whole = str(item.type) == "int"
    low, high = item.metadata["low"], item.metadata["high"]
    wanted = f"a {'whole ' if whole else ''}number from {low:g} to {high:.10g}"
    value = given.value
    if isinstance(value, str) and value.isascii():
        try:
            value = int(value) if whole else float(value)
        except ValueError:
            raise _bad(name, given, wanted) from None
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise _bad(name, given, wanted)
    if not low <= value <= high:
        raise _bad(name, given, wanted)
    return value if whole else float(value)


def _level(name: str, given: Given) -> str:
    word = str(given.value).strip().lower()
    if word not in LOG_LEVELS:
        raise _bad(name, given, "one of " + ", ".join(LOG_LEVELS))
    return word


def _word(name: str, item: Field[Any], given: Given) -> str:
    words: tuple[str, ...] = item.metadata["words"]
    word = given.value.strip().lower() if isinstance(given.value, str) else given.value
    if word not in words:
        raise _bad(name, given, " or ".join(words))
    return str(word)


def _algorithm(name: str, given: Given) -> str:
    if not isinstance(given.value, str) or given.value.lower() != "fernet":
        raise _bad(name, given, "Fernet: there is no other")
    return "Fernet"


def _origins(name: str, given: Given) -> str:
    words = [word.strip().lower() for word in str(given.value).split(",") if word.strip()]
    if not all(re.fullmatch(r"https?://[a-z0-9.\-]+(:[0-9]{1,5})?", word) for word in words):
        raise _bad(name, given, "origins with commas between, as https://a.example")
    return ",".join(words)


def check_listen(settings: Settings, origins: Mapping[str, str]) -> None:
    """Beyond this machine only TLS is spoken, since tokens must not go in clear. Raises SettingError."""
    if settings.listen and settings.tls_cert is None:
        host, _ = parse_listen(settings.listen)
        if not _is_loopback(host):
            given = Given(settings.listen, origins.get("listen", "--listen"))
            raise _bad("listen", given, "127.0.0.1, [::1] or localhost; or set tls_cert: tokens must not go in clear")


def parse_listen(value: object, origin: str = "--listen") -> tuple[str, int]:
    """HOST and PORT of an address to listen on; ("", 0) for none. Raises SettingError."""
    given = Given(value, origin)
    if value == "":
        return "", 0
    match = re.fullmatch(_LISTEN, value, re.ASCII) if isinstance(value, str) else None
    if match is None or int(match[3]) > 65535:
        raise _bad("listen", given, "HOST:PORT with a port from 0 to 65535, as 127.0.0.1:8080")
    host = match[1] or match[2]
    return host, int(match[3])


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _bad(name: str, given: Given, wanted: str) -> SettingError:
    shown = repr(str(given.value) if isinstance(given.value, Path) else given.value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return SettingError(
        f"{given.origin}: {name} is {shown}", hint=f"give {wanted}", setting=name, origin=given.origin, allowed=wanted
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-").replace(".", "-")


def _meant(word: str, words: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, words, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error).splitlines()[0]
