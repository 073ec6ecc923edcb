"""The shape of the code: small modules, short functions, no drawers of odds and ends, no swallowed errors."""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".git", "node_modules", "build", "dist", "config", "logs", "metrics", "run", "backups"}
MODULE_LINES = 400
FUNCTION_LINES = 60
DRAWERS = {"common", "helper", "helpers", "misc", "stuff", "util", "utilities", "utils"}
# Put together here, so that this file does not hold what it looks for.
FOREIGN_WORDS = re.compile("|".join(["/" + "(?:work|farm)/", "/" + r"root/\."]))
HOSTS = ("py" + r"pi\.org", "python" + "hosted", r"registry\." + "npmjs", r"deb\." + "debian")
REGISTRY_HOSTS = re.compile("|".join(HOSTS))


@functools.cache
def files() -> list[Path]:
    """Every file of the checkout that is ours: no caches, no environment, no run-time data."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        here = Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if not made((here / name).parts)]
        found += [ROOT / here / name for name in names if not made((here / name).parts)]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def made(parts: tuple[str, ...]) -> bool:
    """Whether a path in the checkout was made by a tool or by a running registry."""
    if parts[0] in SKIPPED or parts[0].startswith((".venv", ".reg", ".universal")):
        return True
    return any(part == "__pycache__" or part.endswith(("_cache", ".hypothesis")) for part in parts)


def sources(*folders: str) -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def offences(rule: Callable[[ast.AST], list[str]], *folders: str) -> dict[str, list[str]]:
    return {shown(path): found for path, tree in trees(*folders) if (found := rule(tree))}


def trees(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sources(*folders):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


# --- rules, each a function of source text that can be shown to catch something ---------------------------------------


def long_functions(tree: ast.AST) -> list[str]:
    """Functions of more than FUNCTION_LINES lines, docstring and decorators left out."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = (node.end_lineno or node.lineno) - body[0].lineno + 1 if body else 0
            if lines > FUNCTION_LINES:
                found.append(f"{node.name}:{node.lineno} has {lines} lines")
    return found


def swallowed_errors(tree: ast.AST) -> list[str]:
    """Handlers that catch everything and do nothing, and suppress(Exception)."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and catches_all(node.type) and all(map(does_nothing, node.body)):
            found.append(f"line {node.lineno}: everything is caught and dropped")
        elif isinstance(node, ast.Call) and called(node) in ("suppress", "contextlib.suppress"):
            found += [f"line {node.lineno}: everything is suppressed" for word in node.args if catches_all(word)]
    return found


def catches_all(caught: ast.expr | None) -> bool:
    words = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(word is None or ast.unparse(word) in ("Exception", "BaseException") for word in words)


def does_nothing(statement: ast.stmt) -> bool:
    is_word = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_word or isinstance(statement, ast.Pass | ast.Continue)


def called(call: ast.Call) -> str:
    return ast.unparse(call.func)


def sleeps(tree: ast.AST) -> list[str]:
    """Waiting for time; sleep(0) only lets others run."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    waits = [call for call in calls if called(call) in ("time.sleep", "asyncio.sleep", "sleep")]
    return [f"line {call.lineno}: {ast.unparse(call)}" for call in waits if not is_nothing(call.args)]


def is_nothing(seconds: list[ast.expr]) -> bool:
    return bool(seconds) and isinstance(seconds[0], ast.Constant) and seconds[0].value == 0


# --- the rules hold ---------------------------------------------------------------------------------------------------


def test_there_is_something_to_look_at() -> None:
    assert len(sources("universal_registry")) > 20
    assert ROOT / "ureg" in files()


def test_modules_are_short() -> None:
    lines = {shown(path): len(path.read_text().splitlines()) for path in sources("universal_registry", "scripts")}
    assert {name: count for name, count in lines.items() if count > MODULE_LINES} == {}, (
        "what are the two things in it?"
    )


def test_functions_are_short() -> None:
    assert offences(long_functions, "universal_registry", "scripts") == {}


def test_no_error_is_swallowed() -> None:
    assert offences(swallowed_errors, "universal_registry", "scripts", "tests") == {}


def test_tests_wait_for_signals_and_not_for_time() -> None:
    assert offences(sleeps, "tests") == {}


def test_no_file_is_a_drawer_of_odds_and_ends() -> None:
    assert [shown(path) for path in files() if path.stem.lower().strip("_") in DRAWERS] == []


def test_no_text_speaks_of_the_machine_it_was_made_on() -> None:
    assert matches(FOREIGN_WORDS) == []


def test_no_text_names_the_host_of_a_package_registry() -> None:
    assert matches(REGISTRY_HOSTS) == []


def matches(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in files():
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{shown(path)}: {match[0]}" for match in pattern.finditer(text)]
    return found


# --- scripts ----------------------------------------------------------------------------------------------------------


def interpreter(path: Path) -> str:
    """The program that the first line of a script names, or nothing."""
    with path.open("rb") as file:
        first = file.readline(100).decode("utf-8", "replace")
    return first.split()[-1].rpartition("/")[2] if first.startswith("#!") else ""


SCRIPTS = {path: name for path in files() if (name := interpreter(path))}


def test_the_launchers_are_scripts_and_the_makefile_checks_each_of_them() -> None:
    assert {"ureg", "run_registry.sh", "cli/registry_cli.sh", ".ci/run"} <= {shown(path) for path in SCRIPTS}
    line = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("SHELL_FILES"))
    checked = set(line.partition(":=")[2].split())
    assert {shown(path) for path, name in SCRIPTS.items() if name in ("sh", "bash")} == checked


@pytest.mark.parametrize("script", SCRIPTS, ids=shown)
def test_a_script_is_executable_and_its_shell_reads_it(script: Path) -> None:
    assert script.stat().st_mode & 0o777 == 0o755
    name = SCRIPTS[script]
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    for shell in {found, shutil.which("bash") or found} if name == "sh" else {found}:
        done = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


# --- the rules can fail -----------------------------------------------------------------------------------------------


def test_the_rules_catch_what_they_are_for() -> None:
    assert long_functions(ast.parse("def f():\n" + "    x = 1\n" * 61))
    assert not long_functions(ast.parse('def f():\n    """doc"""\n' + "    x = 1\n" * 60))
    for handler in ("except Exception:", "except:", "except (ValueError, BaseException) as e:"):
        for body in ("pass", "...", "'never mind'", "continue"):
            assert swallowed_errors(ast.parse(f"for x in y:\n  try:\n    f()\n  {handler}\n    {body}"))
    assert swallowed_errors(ast.parse("with contextlib.suppress(Exception): f()"))
    assert not swallowed_errors(ast.parse("try:\n  f()\nexcept Exception as e:\n  log(e)"))
    assert not swallowed_errors(ast.parse("try:\n  f()\nexcept ValueError:\n  pass"))
    assert sleeps(ast.parse("await asyncio.sleep(0.1)"))
    assert not sleeps(ast.parse("await asyncio.sleep(0)"))
    assert not sleeps(ast.parse("await asyncio.sleep(0, 'result')"))
    assert FOREIGN_WORDS.search("see /" + "work/x")
    assert REGISTRY_HOSTS.search("https://py" + "pi.org/simple")
