"""What a service consists of on each platform: which files, folders and links, where, whose, and what is in them."""

from __future__ import annotations

import plistlib
from pathlib import Path

import msgspec

from universal_registry.kernel.errors import UsageError

NAME = "universal-registry"
LABEL = "com.universal.registry"
_HOME = "/opt/universal-registry"
"""The home that stands in the files of `deploy/`."""
_PROGRAM = f'"{_HOME}/run_registry.sh"'
DATABASES = (".universal_registry.db", ".registry_propagation.db")


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is written. `keep`: one that is there stays as it is. `private`: readable by the service's group
    alone. `own`: it belongs to the service's user."""

    path: Path
    text: str
    keep: bool = False
    private: bool = False
    own: bool = False


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """`base`: `/`, or the folder of a trial. `unit`: what the service manager reads. `folders`: the service's own, with
    their modes. `links`: from a name in the home to where the thing is kept. `data`: what `--purge` removes."""

    system: bool
    darwin: bool
    base: Path
    home: Path
    unit: File
    files: tuple[File, ...] = ()
    folders: tuple[tuple[Path, int], ...] = ()
    links: tuple[tuple[Path, Path], ...] = ()
    data: tuple[Path, ...] = ()
    env: Path


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be a service. `program`: the command that serves. `user`, `group`: whom a system's service runs as.
    `config`, `people`: a user's folder of configuration, and his home."""

    home: Path
    program: tuple[str, ...]
    darwin: bool
    base: Path = Path("/")
    user: str = "registry"
    group: str = "registry"
    config: Path = Path("/")
    people: Path = Path("/")


def system_layout(wanted: Wanted) -> Layout:
    """The service of a machine. Raises UsageError for a home whose name the files could not hold."""
    _check_home(wanted.home)
    return _darwin_system(wanted) if wanted.darwin else _linux_system(wanted)


def user_layout(wanted: Wanted) -> Layout:
    """The service of one user. Everything is in his home folder."""
    _check_home(wanted.home)
    if wanted.darwin:
        log = wanted.people / "Library/Logs/universal-registry.log"
        path = wanted.people / f"Library/LaunchAgents/{LABEL}.plist"
        unit = File(path=path, text=_plist(wanted, log, user=""))
    else:
        path = wanted.config / f"systemd/user/{NAME}.service"
        unit = File(path=path, text=_unit("registry.user.service", wanted))
    return Layout(
        system=False,
        darwin=wanted.darwin,
        base=wanted.base,
        home=wanted.home,
        unit=unit,
        env=wanted.config / NAME / "env",
        data=tuple(wanted.home / name for name in (*_all_databases(), "config", "logs", "metrics", "run")),
    )


def _linux_system(wanted: Wanted) -> Layout:
    state, logs = wanted.base / f"var/lib/{NAME}", wanted.base / f"var/log/{NAME}"
    settings = wanted.base / f"etc/{NAME}"
    files = (
        File(
            path=wanted.base / f"etc/logrotate.d/{NAME}", text=_moved(template("logrotate"), f"/var/log/{NAME}", logs)
        ),
        File(path=wanted.base / f"etc/sysusers.d/{NAME}.conf", text=template("sysusers.conf")),
        File(path=settings / "env", text=template("env"), keep=True, private=True),
    )
    return Layout(
        system=True,
        darwin=False,
        base=wanted.base,
        home=wanted.home,
        unit=File(
            path=wanted.base / f"etc/systemd/system/{NAME}.service",
            text=_unit("registry.service", wanted),
        ),
        files=files,
        folders=((state, 0o750), (state / "run", 0o750), (state / "metrics", 0o750), (logs, 0o750), _config(wanted)),
        links=_links(wanted, state, logs),
        data=(state, logs, settings, wanted.home / "config"),
        env=settings / "env",
    )


def _darwin_system(wanted: Wanted) -> Layout:
    state, log = wanted.base / f"var/db/{NAME}", wanted.base / f"var/log/{NAME}.log"
    logs = state / "logs"
    rotation = _moved(template("newsyslog.conf"), f"/var/log/{NAME}.log", log).replace(_HOME, str(wanted.home))
    return Layout(
        system=True,
        darwin=True,
        base=wanted.base,
        home=wanted.home,
        unit=File(
            path=wanted.base / f"Library/LaunchDaemons/{LABEL}.plist",
            text=_plist(wanted, log, user=wanted.user),
        ),
        files=(
            File(
                path=wanted.base / f"etc/newsyslog.d/{NAME}.conf",
                text=rotation.replace("root:wheel", f"{wanted.user}:{wanted.group}"),
            ),
            File(path=log, text="", keep=True, private=True, own=True),
        ),
        folders=((state, 0o750), (state / "run", 0o750), (state / "metrics", 0o750), (logs, 0o750), _config(wanted)),
        links=_links(wanted, state, logs),
        data=(state, log, wanted.base / f"etc/{NAME}", wanted.home / "config"),
        env=wanted.base / f"etc/{NAME}/env",
    )


def _config(wanted: Wanted) -> tuple[Path, int]:
    """Keys stay in a real folder of the home that nobody else may enter."""
    return wanted.home / "config", 0o700


def _links(wanted: Wanted, state: Path, logs: Path) -> tuple[tuple[Path, Path], ...]:
    kept = (*DATABASES, "run", "metrics")
    return (*((wanted.home / name, state / name) for name in kept), (wanted.home / "logs", logs))


def _all_databases() -> tuple[str, ...]:
    return tuple(name + suffix for name in DATABASES for suffix in ("", "-wal", "-shm"))


def _unit(name: str, wanted: Wanted) -> str:
    program = " ".join(f'"{word}"' for word in wanted.program)
    return template(name).replace(_PROGRAM, program).replace(_HOME, str(wanted.home))


def _plist(wanted: Wanted, log: Path, *, user: str) -> str:
    table = plistlib.loads(template("registry.plist").encode())
    table["ProgramArguments"] = list(wanted.program)
    table["EnvironmentVariables"]["REGISTRY_HOME"] = str(wanted.home)
    table["StandardOutPath"] = table["StandardErrorPath"] = str(log)
    if user:
        table["UserName"] = user
    else:
        del table["UserName"]
    return plistlib.dumps(table, sort_keys=False).decode()


def _moved(text: str, before: str, now: Path) -> str:
    return text.replace(before, str(now))


def _check_home(home: Path) -> None:
    if not all(char.isprintable() and char not in "\"\\%$'" for char in str(home)):
        raise UsageError(
            f"{str(home)!r:.200} cannot be the home of a service: it has a quote, %, $, \\ or a control character",
            hint="choose another --home",
        )


def template(name: str) -> str:
    """A file of `deploy/`: it is beside the package in a checkout, and in the package where that was installed."""
    package = Path(__file__).resolve().parents[1]
    folders = (package / "deploy", package.parent / "deploy")
    found = next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)
    return found.read_text(encoding="utf-8")
