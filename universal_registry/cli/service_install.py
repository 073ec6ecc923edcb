"""Putting a service in place and taking it away again. Twice does no harm; what people changed is kept."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from grp import getgrnam
from pathlib import Path
from pwd import getpwnam

from universal_registry.cli.service_layout import NAME, File, Layout
from universal_registry.kernel.errors import Conflict, Forbidden, NotFound, RegistryError
from universal_registry.kernel.world import SystemWorld
from universal_registry.storage.durable import replaced_file

Tell = Callable[[str], None]
_ACCOUNT = "registry"


class Owner:
    """The user and group that a system's service runs as; nobody in particular where we may not give files away."""

    def __init__(self, user: str | None, group: str | None) -> None:
        self.user = user
        self.group = group

    def take(self, path: Path, mode: int, *, user: bool) -> None:
        """Give the file to its user (or only its group), with this mode. Raises Conflict for a link: whoever owns the
        folder that it is in could have anything given away by it."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise Conflict(f"{path} is a link; nothing is given away through one", hint="remove it") from None
        try:
            if self.user is not None and self.group is not None:
                os.fchown(descriptor, getpwnam(self.user).pw_uid if user else -1, getgrnam(self.group).gr_gid)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)


def owner_of(layout: Layout, user: str, group: str) -> Owner:
    """Who that is for this layout. Raises Forbidden when only root could do it."""
    if not layout.system or layout.base != Path("/"):
        return Owner(None, None)
    if os.geteuid() != 0:
        raise Forbidden("a service of the machine is root's to install and to remove", hint="run it with sudo")
    return Owner(user, group)


def install(layout: Layout, owner: Owner, command: tuple[str, ...], environ: Mapping[str, str], tell: Tell) -> None:
    """Write what is missing or different, and make the databases. `command`: `ureg`, for the service's own user.

    Raises Conflict for data that stands where a link belongs, RegistryError for what the machine refuses.
    """
    _check_reach(layout, owner)
    for file in _files(layout):
        _write(file, tell)
    if owner.user is not None and not layout.darwin:
        _make_account(layout, owner, tell)
    for file in _files(layout):
        if file.own or file.private:
            owner.take(file.path, 0o640, user=file.own)
    for folder, mode in layout.folders:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            tell(f"made {folder}")
        owner.take(folder, mode, user=True)
    for link, kept in layout.links:
        _link(link, kept, tell)
    _init(layout, owner, command, environ, tell)


def uninstall(layout: Layout, tell: Tell) -> None:
    """Remove the files of the service. Data, keys, logs and settings stay."""
    for file in _files(layout):
        if not file.keep and file.path.exists():
            file.path.unlink()
            tell(f"removed {file.path}")


def purge(layout: Layout, tell: Tell) -> None:
    """Remove the data too: databases, keys, logs, settings, and the account. Raises Conflict while a daemon runs."""
    from universal_registry.kernel.settings import Places
    from universal_registry.storage.lock import read_holder

    if (holder := read_holder(Places(layout.home).lock)) is not None:
        raise Conflict(f"process {holder.pid} uses {layout.home}", hint="stop it with: ureg down")
    for path in (*(link for link, _ in layout.links if link.is_symlink()), *layout.data):
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            continue
        tell(f"removed {path}")
    if layout.system and not layout.darwin and layout.base == Path("/") and _has_account():
        for words in (("userdel", _ACCOUNT), ("deluser", _ACCOUNT)):
            if shutil.which(words[0]):
                _run(*words)
                tell(f"removed the account {_ACCOUNT}")
                return


def _files(layout: Layout) -> Iterator[File]:
    yield layout.unit
    yield from layout.files


def _write(file: File, tell: Tell) -> None:
    if file.path.exists() and (file.keep or file.path.read_text(encoding="utf-8", errors="replace") == file.text):
        return
    file.path.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o600 if file.private else 0o644  # from the beginning: nobody reads it in between
    with replaced_file(file.path, SystemWorld().new_id(), mode=mode) as new:
        os.fchmod(new.fileno(), mode)  # whatever the umask is
        new.write(file.text.encode())
    tell(f"wrote {file.path}")


def _link(link: Path, kept: Path, tell: Tell) -> None:
    if link.is_symlink() and link.readlink() == kept:
        return
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        raise Conflict(
            f"{link} is there already, of a registry that no service runs",
            hint=f"stop it, and move {link.parent}'s databases, run, metrics and logs to {kept.parent}",
        )
    link.symlink_to(kept)
    tell(f"linked {link} to {kept}")


def _check_reach(layout: Layout, owner: Owner) -> None:
    """The service's user must be able to come to its home. Raises Conflict."""
    if owner.user is None or layout.darwin:
        return
    for folder in (layout.home, *layout.home.parents):
        if folder.exists() and not folder.stat().st_mode & 0o001:
            raise Conflict(
                f"{folder} is closed to the user {owner.user}, who runs the service",
                hint="sudo bash install_registry.sh puts the program into /opt; or: ureg service install --user",
            )


def _make_account(layout: Layout, owner: Owner, tell: Tell) -> None:
    if _has_account():
        return
    home = f"/var/lib/{NAME}"
    ways: tuple[tuple[tuple[str, ...], ...], ...] = (
        (("systemd-sysusers", str(layout.base / f"etc/sysusers.d/{NAME}.conf")),),
        (("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", home, "--shell",
          "/usr/sbin/nologin", _ACCOUNT),),
        (("addgroup", "-S", _ACCOUNT),
         ("adduser", "-S", "-D", "-H", "-h", home, "-s", "/sbin/nologin", "-G", _ACCOUNT, _ACCOUNT)),
    )  # fmt: skip
    for way in ways:
        if shutil.which(way[0][0]):
            for words in way:
                _run(*words)
            tell(f"made the account {owner.user}")
            return
    raise NotFound("nothing here can make an account: no systemd-sysusers, useradd or adduser", hint="install one")


def _has_account() -> bool:
    import pwd

    try:
        pwd.getpwnam(_ACCOUNT)
    except KeyError:
        return False
    return True


def _init(layout: Layout, owner: Owner, command: tuple[str, ...], environ: Mapping[str, str], tell: Tell) -> None:
    """As the service's own user, with the settings that it will have."""
    given = {name: value for name, value in environ.items() if not name.startswith("REGISTRY_")}
    given |= read_env(layout.env) | {"REGISTRY_HOME": str(layout.home)}
    account: dict[str, object] = {}
    if owner.user is not None:
        import pwd

        entry = pwd.getpwnam(owner.user)
        given |= {"HOME": entry.pw_dir, "USER": owner.user, "LOGNAME": owner.user}
        for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME"):
            given.pop(name, None)
        account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "umask": 0o027}
    done = subprocess.run(  # type: ignore[call-overload]  # noqa: S603 - our own program
        [*command, "init"], env=given, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        **account,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        tell(line)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise RegistryError(f"the databases were not made: {said[-1].removeprefix('ureg: ')}")


def read_env(path: Path) -> dict[str, str]:
    """The variables of ours in an EnvironmentFile, or none."""
    found = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        name, mark, value = line.strip().partition("=")
        if mark and name.startswith("REGISTRY_"):
            try:
                found[name] = "".join(shlex.split(value)) if value[:1] in "\"'" else value
            except ValueError:
                found[name] = value
    return found


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise RegistryError(f"{words[0]} failed: {said[-1]}")


def serving_command(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What serves, and what runs a command: the launchers where this program is a checkout, else this Python."""
    if (root / "run_registry.sh").is_file():
        return (str(root / "run_registry.sh"),), ("sh", str(root / "ureg"))
    python = (sys.executable, "-P", "-m", "universal_registry")
    return (*python, "serve"), python
