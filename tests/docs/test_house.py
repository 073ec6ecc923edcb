"""The project's own files say the same: version, dependencies, pins, licence, targets, places."""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import universal_registry

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINNED = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?: ;[^\\]*)? \\\n"
    r"(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    re.MULTILINE,
)
PACKAGES = sorted((ROOT / "universal_registry").glob("*/__init__.py"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: str) -> dict[str, tuple[str, int]]:
    """name -> (version, how many files are pinned)."""
    found = PINNED.finditer((ROOT / file).read_text())
    return {normal(pin["name"]): (pin["version"], pin["hashes"].count("sha256:")) for pin in found}


def names(requirements: list[Any]) -> set[str]:
    return {normal(re.split(r"[<>=!~ ;\[]", line)[0]) for line in requirements if isinstance(line, str)}


MODULES = {  # what is imported of each
    {"nats-py": "nats", "ruamel-yaml": "ruamel"}.get(name, name.replace("-", "_"))
    for name in names(PYPROJECT["project"]["dependencies"])
}


EXTRAS = {
    name.replace("-", "_") for extra in PYPROJECT["project"]["optional-dependencies"].values() for name in names(extra)
}


def test_the_version_has_one_home() -> None:
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "universal_registry/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", universal_registry.__version__)


def test_the_build_group_is_what_the_build_asks_for() -> None:
    assert PYPROJECT["dependency-groups"]["build"] == PYPROJECT["build-system"]["requires"]


def test_every_dependency_is_pinned_by_hash() -> None:
    groups = PYPROJECT["dependency-groups"]
    runtime, dev = pins("requirements.txt"), pins("requirements-dev.txt")
    assert names(PYPROJECT["project"]["dependencies"]) | names(groups["build"]) <= runtime.keys()
    assert names(groups["dev"]) <= dev.keys()
    assert {name: dev[name] for name in runtime} == runtime, "one version of each, whichever way it is set up"


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_the_pins_hold_nothing_but_versions_and_hashes(file: str) -> None:
    rest = PINNED.sub("", (ROOT / file).read_text())
    assert [line for line in rest.splitlines() if not line.startswith("    #")] == []


def test_the_starter_asks_for_what_the_project_depends_on() -> None:
    text = (ROOT / "scripts" / "ureg.py").read_text()
    needed = re.search(r"^NEEDED = (\(.*?\))$", text, re.MULTILINE | re.DOTALL)
    assert needed is not None
    assert set(ast.literal_eval(needed[1])) == MODULES - {"uvloop"}


def test_dependencies_are_imported_and_imports_are_dependencies() -> None:
    used = set()
    for path in (ROOT / "universal_registry").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                used.add(node.module.partition(".")[0])
    assert used - set(sys.stdlib_module_names) - {"universal_registry"} == MODULES | EXTRAS


def test_the_licence_is_apache_2() -> None:
    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_bytes()
    assert hashlib.sha256(text).hexdigest() == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_make_lists_every_target_that_a_person_would_type() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE))
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    assert listed == phony
    assert {"setup", "check", "test", "test-fast", "demo", "docs"} <= listed
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    "path",
    [
        ".venv/bin/python",
        ".universal_registry.db",
        ".universal_registry.db-wal",
        ".registry_propagation.db",
        "config/encryption.key",
        "config/admin.token",
        "logs/registry.log",
        "metrics/registry.metrics",
        "run/ureg.sock",
        "universal_registry/registry/catalogue.json",
        "uv.lock",
    ],
)
def test_run_time_data_and_keys_are_never_committed(path: str) -> None:
    assert ignored(path)


def test_what_is_ours_is_not_ignored() -> None:
    ours = ["config.py", "ureg", "cli/registry_cli.sh", "universal_registry/registry/catalogue.yaml"]
    ours += [f"universal_registry/{path.parent.name}/x.py" for path in PACKAGES]
    assert [path for path in ours if ignored(path)] == []


def ignored(path: str) -> bool:
    """Whether git would leave the path out, by our .gitignore alone."""
    command = ["git", "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "-q", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 128:
        pytest.skip("this is no git checkout")
    return done.returncode == 0


def test_decision_records_are_short_and_name_an_alternative() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert records
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", record.name)
        assert len(text.splitlines()) <= 80, record.name
        assert "alternative" in text.lower(), record.name


def test_the_map_of_propagation_names_each_module_once() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## Inside `propagation/`")[1].split("\n## ")[0]
    modules = (ROOT / "universal_registry" / "propagation").rglob("*.py")
    there = sorted(path.stem for path in modules if path.stem != "__init__")
    cells = "".join(row.split("|")[2] for row in section.splitlines() if row.startswith("| "))
    named = re.findall(r"`([a-z_]+)`", cells)
    assert sorted(name for name in named if name != "where") == there
