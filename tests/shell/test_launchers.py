"""ureg, run_registry.sh and registry_cli.sh in real shells: which Python they take, and that arguments arrive whole.

Each test works on a copy of the launchers in a folder of its own; a small recording program stands where Python would.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("ureg", "run_registry.sh", "cli/registry_cli.sh", "scripts", "requirements.txt", "pyproject.toml")
SHELLS = ("dash", "busybox", "bash", "mksh", "yash", "zsh")
TOOLS = ("sh", "bash", "dirname", "readlink", "cat", "env", "printf")
HOSTILE = ["x; touch pwned", "$(touch pwned)", "`touch pwned`", "-rf", "🦊" * 60, "", "two words", "a\nb\n", "*"]
HOSTILE += ["'\"\\", "%s%n", "--", "-", "~", "a=b", "\\t", "\u202eabc"]

RECORDER = r"""#!/bin/sh
# Stands for a Python: writes down how it was called.
{ printf '%s\0' "$@"; } >"$RECORD/args"
{ printf '%s\n' "$REGISTRY_HOME" "$$" "$PWD"; } >"$RECORD/facts"
exit "${RECORD_EXIT:-0}"
"""


@dataclass(frozen=True)
class Checkout:
    """A copy of the launchers, and a place where the recorder writes."""

    root: Path
    record: Path
    bin: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Nothing of the caller's: a PATH with a few tools and no Python. (yash takes no emoji in the C locale.)"""
        base = {"PATH": str(self.bin), "HOME": str(self.record), "RECORD": str(self.record), "LC_ALL": "C.UTF-8"}
        return base | more

    def run(self, *command: str | Path, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in command]
        where = cwd or self.record
        environment = self.environment(**more)
        return subprocess.run(
            words, cwd=where, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    def args(self) -> list[str]:
        """What the recorder was called with, the starter script first."""
        return (self.record / "args").read_bytes().decode().split("\0")[:-1]

    def home(self) -> str:
        return (self.record / "facts").read_text().split("\n")[0]

    @property
    def starter(self) -> str:
        return str(self.root / "scripts" / "ureg.py")


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def make_checkout(tmp_path: Path) -> Callable[[str], Checkout]:
    def make(name: str) -> Checkout:
        root, record, tools = tmp_path / name, tmp_path / f"record of {name}", tmp_path / f"bin of {name}"
        for folder in (root, record, tools):
            folder.mkdir()
        for part in COPIED:
            source, target = ROOT / part, root / part
            target.parent.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
        for tool in TOOLS:
            if found := shutil.which(tool):
                (tools / tool).symlink_to(found)
        return Checkout(root, record, tools)

    return make


@pytest.fixture
def checkout(make_checkout: Callable[[str], Checkout]) -> Checkout:
    return make_checkout("a check out")


@pytest.fixture
def recorder(checkout: Checkout) -> Path:
    return executable(checkout.record / "recording python", RECORDER)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    found = shutil.which(request.param)
    if found is None:
        pytest.skip(f"{request.param} is not installed")
    return [found, "sh"] if request.param == "busybox" else [found]


# --- arguments and places ---------------------------------------------------------------------------------------------


def test_every_shell_passes_arguments_exactly(checkout: Checkout, recorder: Path, shell: list[str]) -> None:
    for front, expected in (("ureg", []), ("run_registry.sh", ["serve"])):
        done = checkout.run(*shell, checkout.root / front, *HOSTILE, REGISTRY_PYTHON=str(recorder))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert checkout.args() == [checkout.starter, *expected, *HOSTILE]
    assert not list(checkout.root.parent.rglob("pwned"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["init"],
        ["status"],
        ["unidirectional", "--source", "x; touch pwned", "--target", "-rf", "--data", '{"a": "$(touch pwned)"}'],
        ["unidirectional", "g++", "🦊🦊", "x; touch pwned"],
        ["unidirectional", "", "two words", "a\n"],
        ["multicast", "--source", "hub", "--targets", "s1,s2,s3"],
        ["multicast", "hub", "s1", "s2", "[1, 2]"],
        ["broadcast", "--source", "publisher", "--exclude", "internal"],
        ["bidirectional", "--source", "service1", "--target", "service2"],
        ["enable-stream", "id", "websocket"],
        ["unidirectional", "--help"],
    ],
)
def test_registry_cli_passes_flags_and_positions(
    checkout: Checkout, recorder: Path, shell: list[str], arguments: list[str]
) -> None:
    script = checkout.root / "cli" / "registry_cli.sh"
    done = checkout.run(*shell, script, *arguments, REGISTRY_PYTHON=str(recorder), RECORD_EXIT="8")
    assert (done.returncode, done.stdout, done.stderr) == (8, "", "")
    assert checkout.args() == [checkout.starter, *arguments]
    assert not list(checkout.root.parent.rglob("pwned"))


def test_registry_cli_helps_without_python_and_hands_on_the_unknown(
    checkout: Checkout, recorder: Path, shell: list[str]
) -> None:
    script = checkout.root / "cli" / "registry_cli.sh"
    texts = set()
    for words in (["help"], ["--help"], ["-h"], []):
        done = checkout.run(*shell, script, *words)
        assert (done.returncode, done.stderr) == (0, "")
        texts.add(done.stdout)
    assert len(texts) == 1
    assert "unidirectional SOURCE TARGET [DATA [PROTOCOL]]" in texts.pop()
    for words, expected in (
        (["frobnicate", "x"], ["frobnicate", "x"]),
        (["start"], ["up"]),
        (["stop"], ["down"]),
        (["targets"], ["target", "ls", "-o", "tsv"]),
        (["events", "a b"], ["delivery", "ls", "-o", "tsv", "--session", "a b"]),
        (["get", "alias"], ["get", "alias", "-o", "tsv"]),
        (["get", "alias", "-o", "yaml"], ["get", "alias", "-o", "yaml"]),
    ):
        done = checkout.run(*shell, script, *words, REGISTRY_PYTHON=str(recorder), RECORD_EXIT="3")
        assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
        assert checkout.args() == [checkout.starter, *expected]


def test_found_from_any_folder_and_through_symlinks(checkout: Checkout, recorder: Path, shell: list[str]) -> None:
    links = checkout.record / "my links"
    links.mkdir()
    for name, target in (("ureg", "ureg"), ("run", "run_registry.sh"), ("cli", "cli/registry_cli.sh")):
        (links / f"{name}-direct").symlink_to(checkout.root / target)
        (links / name).symlink_to(f"{name}-direct")  # a relative link to an absolute one
    for cwd, prefix in ((Path("/"), f"{links}/"), (links, "./"), (links, ""), (links, "../my links/")):
        for name, words in (("ureg", []), ("run", ["serve"]), ("cli", ["status"])):
            given = ["status"] if name == "cli" else []
            environment = {"REGISTRY_PYTHON": str(recorder), "CDPATH": "/tmp:/", "ENV": "", "BASH_ENV": ""}
            done = checkout.run(*shell, f"{prefix}{name}", *given, cwd=cwd, **environment)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), (cwd, prefix, name)
            assert checkout.args() == [checkout.starter, *words]
            assert (checkout.record / "facts").read_text().split("\n")[2] == str(cwd)
    for cwd, command in ((checkout.root, "ureg"), (checkout.root / "cli", "registry_cli.sh")):
        assert checkout.run(*shell, command, "status", cwd=cwd, REGISTRY_PYTHON=str(recorder)).returncode == 0
        assert checkout.args() == [checkout.starter, "status"]


def test_run_directly_it_keeps_its_process(checkout: Checkout, recorder: Path) -> None:
    for front in ("ureg", "run_registry.sh"):
        environment = checkout.environment(REGISTRY_PYTHON=str(recorder), RECORD_EXIT="3")
        with subprocess.Popen([checkout.root / front], env=environment) as child:
            assert child.wait(30) == 3
        assert (checkout.record / "facts").read_text().split("\n")[1] == str(child.pid), "exec, so that signals arrive"


def test_home_is_the_checkout_unless_said_otherwise(checkout: Checkout, recorder: Path) -> None:
    for front in ("ureg", "run_registry.sh", "cli/registry_cli.sh"):
        checkout.run(checkout.root / front, "status", REGISTRY_PYTHON=str(recorder))
        assert checkout.home() == str(checkout.root)
        checkout.run(checkout.root / front, "status", REGISTRY_PYTHON=str(recorder), REGISTRY_HOME="/else where")
        assert checkout.home() == "/else where"


# --- which Python -----------------------------------------------------------------------------------------------------


def test_registry_python_that_is_no_program_is_one_line(checkout: Checkout, shell: list[str]) -> None:
    done = checkout.run(*shell, checkout.root / "ureg", "status", REGISTRY_PYTHON="/no/such python")
    assert (done.returncode, done.stderr) == (
        2,
        "ureg: REGISTRY_PYTHON is /no/such python, which is no program that can be run\n",
    )


def test_registry_python_may_be_a_name_on_path(checkout: Checkout, recorder: Path) -> None:
    (checkout.bin / "mypython").symlink_to(recorder)
    assert checkout.run(checkout.root / "ureg", "status", REGISTRY_PYTHON="mypython").returncode == 0
    assert checkout.args() == [checkout.starter, "status"]


def test_a_finished_venv_is_taken_without_a_question(checkout: Checkout, shell: list[str]) -> None:
    finished_venv(checkout, RECORDER)
    assert checkout.run(*shell, checkout.root / "ureg", "get", "x").returncode == 0
    assert checkout.args() == [checkout.starter, "get", "x"], "one call: the stamp spoke for it"


def test_a_venv_without_the_packages_gives_way_to_an_installed_ureg(checkout: Checkout, shell: list[str]) -> None:
    executable(checkout.root / ".venv" / "bin" / "python", "#!/bin/sh\nexit 1\n")
    executable(checkout.bin / "ureg", RECORDER)
    done = checkout.run(*shell, checkout.root / "ureg", "get", "two words")
    assert (done.returncode, done.stderr) == (0, "")
    assert checkout.args() == ["get", "two words"]
    assert checkout.home() == str(checkout.root)


def test_a_hand_made_venv_that_has_the_packages_is_usable(checkout: Checkout) -> None:
    script = checkout.root / "scripts" / "make_venv.py"
    assert checkout.run(sys.executable, "-I", script, "--usable").returncode == 0
    assert checkout.run(sys.executable, "-I", "-S", script, "--usable").returncode == 1, "no site-packages, no packages"


def test_launchers_on_path_never_call_one_another_for_ever(make_checkout: Callable[[str], Checkout]) -> None:
    one, two = make_checkout("one"), make_checkout("two")
    (one.bin / "ureg").symlink_to(one.root / "ureg")
    path = f"{one.bin}:{one.root}:{two.root}:relative:"
    done = one.run(one.root / "ureg", "status", PATH=path)
    assert done.returncode == 1
    assert done.stderr == (
        "universal-registry: Python 3.11 or newer is needed, and there is none on PATH; install one or uv, or set"
        " REGISTRY_PYTHON\n"
    )


# --- making .venv -----------------------------------------------------------------------------------------------------

FAKE_PYTHON = """
# The real Python, seen through the eyes of another machine.
import importlib.util, sys
real = importlib.util.find_spec
if "{missing}":
    importlib.util.find_spec = lambda name, *more: None if name == "{missing}" else real(name, *more)
sys.version_info = {version}
at = sys.argv.index("-c")
code, sys.argv = sys.argv[at + 1], ["-c", *sys.argv[at + 2:]]
exec(code)
"""


def fake_python(checkout: Checkout, version: tuple[int, int], missing: str = "") -> None:
    program = checkout.record / "fake.py"
    program.write_text(FAKE_PYTHON.format(version=(*version, 1, "final", 0), missing=missing))
    executable(checkout.bin / "python3", f'#!/bin/sh\nexec "{sys.executable}" "{program}" "$@"\n')


def test_a_python_that_is_too_old_is_one_line(checkout: Checkout, shell: list[str]) -> None:
    fake_python(checkout, (3, 9))
    for front in ("ureg", "run_registry.sh"):
        done = checkout.run(*shell, checkout.root / front, "status")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "universal-registry: Python 3.11 or newer is needed, and python3 here is 3.9; install a newer one or uv, or"
            " set REGISTRY_PYTHON\n"
        )
    assert not (checkout.root / ".venv").exists()


def test_a_python_without_its_venv_module_is_one_line(checkout: Checkout) -> None:
    fake_python(checkout, (3, 11), missing="ensurepip")
    done = checkout.run(checkout.root / "ureg", "status")
    assert done.returncode == 1
    assert done.stderr == (
        "universal-registry: python3 cannot make a virtual environment; install its venv module (Debian: apt install"
        " python3-venv) or uv\n"
    )


@pytest.mark.slow
def test_offline_is_one_line_with_the_cause(checkout: Checkout) -> None:
    (checkout.bin / "python3").symlink_to(sys.executable)
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_NO_CACHE_DIR": "1"}
    done = checkout.run(checkout.root / "ureg", "status", **nowhere)
    assert (done.returncode, done.stdout) == (1, "")
    first, *others = done.stderr.splitlines()
    assert first.startswith("universal-registry: making .venv with Python ")
    assert " ".join(others) == (
        "universal-registry: the package index cannot be reached (offline?); connect once, or set REGISTRY_PYTHON to a"
        " Python that has the packages of requirements.txt; see .venv.log"
    )
    assert not list((checkout.root / ".venv").glob(".ready-*"))


def test_a_checkout_that_cannot_be_written_is_one_line(checkout: Checkout) -> None:
    (checkout.bin / "python3").symlink_to(sys.executable)
    (checkout.root / ".venv.lock").mkdir()
    done = checkout.run(checkout.root / "ureg", "status")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert ".venv.lock" in done.stderr


def test_two_first_starts_wait_for_one_another_and_a_killed_one_frees_the_way(checkout: Checkout) -> None:
    finished_venv(checkout, RECORDER)
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); print('held', flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(checkout.root / ".venv.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    script = checkout.root / "scripts" / "make_venv.py"
    waiter = subprocess.Popen([sys.executable, "-I", script, "runtime"], stderr=subprocess.PIPE, text=True)
    assert waiter.stderr is not None
    assert waiter.stderr.readline() == "universal-registry: another start is making .venv; waiting for it\n"
    assert waiter.poll() is None
    holder.kill()
    holder.communicate()
    assert waiter.communicate()[1] == "", "the other start had finished it: nothing left to do"
    assert waiter.returncode == 0


def test_a_stamp_of_other_pins_or_another_place_does_not_count(checkout: Checkout, tmp_path: Path) -> None:
    finished_venv(checkout, RECORDER)
    assert loaded(checkout).stamped("runtime")
    assert not loaded(checkout).stamped("dev")
    moved = Checkout(tmp_path / "moved", checkout.record, checkout.bin)
    checkout.root.rename(moved.root)
    assert not loaded(moved).stamped("runtime")
    finished_venv(moved, RECORDER)
    with (moved.root / "requirements.txt").open("a") as requirements:
        requirements.write("another==1.0\n")
    assert not loaded(moved).stamped("runtime")


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("OSError: [Errno 28] No space left on device", "no space left on the device"),
        (
            "WARNING: Retrying after NewConnectionError\nERROR: No matching distribution found for x",
            "cannot be reached",
        ),
        ("error: client error (Connect)\n dns error: failed to lookup address", "cannot be reached"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "its hash differs"),
        ("ERROR: No matching distribution found for apsw==9.9", "has no apsw==9.9 for this Python"),
        ("Collecting x\nERROR: something else\n", "could not install: ERROR: something else"),
        (
            "  OSError: no README.md\n[end of output]\nerror: metadata-failed",
            "could not install: OSError: no README.md",
        ),
        ("", "could not install: no output"),
    ],
)
def test_the_cause_of_a_failed_install_is_named(checkout: Checkout, log: str, expected: str) -> None:
    line = loaded(checkout).why(log)
    assert expected in line
    assert "\n" not in line


# --- the starter, under the wrong Python ------------------------------------------------------------------------------


def test_the_starter_under_an_old_python_is_one_line() -> None:
    code = "import runpy, sys; sys.version_info = (3, 9, 1, 'final', 0); runpy.run_path(sys.argv[1])"
    command = [sys.executable, "-c", code, str(ROOT / "scripts" / "ureg.py"), "status"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"ureg: {sys.executable} is Python 3.9; 3.11 or newer is needed; unset REGISTRY_PYTHON to let ureg make .venv\n"
    )


def test_the_starter_under_a_python_without_the_packages_is_one_line() -> None:
    command = [sys.executable, "-I", "-S", str(ROOT / "scripts" / "ureg.py"), "kinds"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    expected = "lacks aiohttp, apsw, asyncpg, click, cryptography, httptools, idna, jinja2, jmespath, msgspec, nats, "
    expected += "orjson, prometheus_client, ruamel, websockets"
    assert done.stderr == f"ureg: {sys.executable} {expected}; unset REGISTRY_PYTHON to let ureg make .venv\n"


def test_the_starter_runs_this_checkout_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "universal_registry.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong one')")
    command = [str(ROOT / "ureg"), "--version"]
    environment = {**os.environ, "REGISTRY_PYTHON": sys.executable}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0." in done.stdout


# --- means ------------------------------------------------------------------------------------------------------------


def loaded(checkout: Checkout) -> ModuleType:
    """make_venv.py of a checkout as a module."""
    spec = importlib.util.spec_from_file_location("make_venv", checkout.root / "scripts" / "make_venv.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finished_venv(checkout: Checkout, python: str) -> None:
    """A .venv whose Python is the given program, with the stamp of a finished set-up."""
    executable(checkout.root / ".venv" / "bin" / "python", python)
    os.utime(checkout.root / "requirements.txt", (1, 1))
    loaded(checkout).renew_stamps("runtime")
