"""The entry point, around commands of the tests' own: every end of a command is one line and an exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(command: str, *, shell: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `command` (a Python statement) in the place of the command line."""
    program = (
        "import sys, os, types, signal\n"
        "from universal_registry.kernel.errors import *\n"
        "cli = types.ModuleType('universal_registry.cli.main')\n"
        "def command():\n"
        f"    {command}\n"
        "    return 0\n"
        "cli.main = command\n"
        "sys.modules['universal_registry.cli.main'] = cli\n"
        "from universal_registry.__main__ import main\n"
        "sys.exit(main())\n"
    )
    words = ["bash", "-c", f'"$0" -c "$1" {shell}', sys.executable, program]
    said = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **(env or {})}
    return subprocess.run(words, env=said, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        ("raise NotFound('no alias gs', hint='look')", 3, "ureg: no alias gs (look)"),
        ("raise StoreLocked('in use')", 5, "ureg: in use"),
        ("raise Unreachable('nobody')", 7, "ureg: nobody"),
        ("raise TimedOut('late')", 124, "ureg: late"),
        ("raise NotFound('a\\nb\\x1b[31m\\u202e')", 3, "ureg: a\\u000ab\\u001b[31m\\u202e"),
        (
            "raise FileNotFoundError(2, 'No such file or directory', 'x.yaml')",
            1,
            "ureg: No such file or directory: x.yaml",
        ),
        ("raise OSError(28, 'No space left on device')", 1, "ureg: No space left on device: standard output"),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, None),
    ],
)
def test_each_error_is_one_line_and_its_exit_code(command: str, code: int, line: str | None) -> None:
    found = run(command)
    assert (found.returncode, found.stdout) == (code, "")
    assert found.stderr == ("" if line is None else line + "\n")


def test_a_fault_of_ours_is_one_line_and_a_traceback_only_when_wanted() -> None:
    found = run("{}['x']")
    assert found.returncode == 1
    assert found.stderr.startswith("ureg: a fault of ours: KeyError: 'x' (REGISTRY_DEBUG=1 shows where")
    assert len(found.stderr.splitlines()) == 1
    found = run("{}['x']", env={"REGISTRY_DEBUG": "1"})
    assert found.returncode == 1
    assert "Traceback" in found.stderr


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    found = run("print('x' * 10_000_000)", shell='| head -c 1; exit "${PIPESTATUS[0]}"')
    assert (found.stdout, found.stderr, found.returncode) == ("x", "", 128 + signal.SIGPIPE)


@pytest.mark.parametrize("env", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_full_standard_output_is_named(env: dict[str, str]) -> None:
    found = run("print('x')", shell="> /dev/full", env=env)
    assert (found.returncode, found.stderr) == (1, "ureg: No space left on device: standard output\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_files_are_taken_by_nothing_else(closed: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    opening = f"f = os.open({str(file)!r}, os.O_RDWR | os.O_CREAT)"
    found = run(f"{opening}; print('out'); print('err', file=sys.stderr); os.write(f, b'own')", shell=closed)
    assert found.returncode == 0
    assert file.read_text() == "own"
