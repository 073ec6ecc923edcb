"""The bill of materials that `make sbom` writes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_it_names_each_package_at_the_version_that_is_pinned(tmp_path: Path) -> None:
    files = [tmp_path / "one" / "sbom.json", tmp_path / "two.json"]
    for file in files:
        subprocess.run([sys.executable, ROOT / "scripts/sbom.py", file], check=True, capture_output=True)
    assert files[0].read_bytes() == files[1].read_bytes()
    bill = json.loads(files[0].read_bytes())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "universal-registry"
    components = {each["name"]: each for each in bill["components"]}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[<>=!~ ;\[]", line)[0].replace(".", "-") for line in wanted} <= components.keys()
    lines = re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    pinned = {name.replace(".", "-"): version for name, version in lines}
    assert {name: each["version"] for name, each in components.items()} == {name: pinned[name] for name in components}
    references = {each["bom-ref"] for each in (*bill["components"], bill["metadata"]["component"])}
    assert {each["ref"] for each in bill["dependencies"]} == references
    assert {each for line in bill["dependencies"] for each in line["dependsOn"]} <= references
    assert [name for name, each in components.items() if not each.get("licenses")] == []


def test_wrong_words_are_said_in_one_line() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts/sbom.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: sbom.py FILE\n")
