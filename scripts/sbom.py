"""Writes what an installed ureg is made of, as a CycloneDX 1.6 bill of materials (JSON).

    .venv/bin/python scripts/sbom.py dist/sbom.cdx.json

Read from the metadata of the packages that are installed, beginning at universal-registry: each at the version that is
here, with its licence and what it needs itself. The same packages give the same file, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import sys
import uuid
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "universal-registry"


def main() -> int:
    """Write it, and say how much is in it. 1 when a package that is needed is not installed."""
    if len(sys.argv) != 2:
        print("usage: sbom.py FILE", file=sys.stderr)
        return 2
    try:
        found = installed()
    except PackageNotFoundError as error:
        print(f"sbom.py: {error.name} is needed and not installed; run: make setup", file=sys.stderr)
        return 1
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(bill(found), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: {len(found) - 1} packages")
    return 0


def installed() -> dict[str, tuple[Distribution, list[str]]]:
    """Each package that is needed to run, by its name, with the names of those that it needs itself."""
    found: dict[str, tuple[Distribution, list[str]]] = {}
    waiting = [ROOT]
    while waiting:
        name = waiting.pop()
        if name not in found:
            package = distribution(name)
            found[name] = package, sorted(needs(package))
            waiting += found[name][1]
    return dict(sorted(found.items()))


def needs(package: Distribution) -> set[str]:
    """What it requires on this platform; extras are nobody's here."""
    wanted = map(Requirement, package.requires or ())
    return {
        canonicalize_name(each.name) for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})
    }


def bill(found: dict[str, tuple[Distribution, list[str]]]) -> dict[str, Any]:
    """The document."""
    components = {name: component(name, package) for name, (package, _) in found.items()}
    reference = {name: each["bom-ref"] for name, each in components.items()}
    content: dict[str, Any] = {
        "metadata": {"component": {**components.pop(ROOT), "type": "application"}},
        "components": list(components.values()),
        "dependencies": [
            {"ref": reference[name], "dependsOn": [reference[each] for each in needed]}
            for name, (_, needed) in found.items()
        ],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    serial = uuid.UUID(bytes=digest[:16], version=4)  # of what is in it: no date and no chance
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1}
    return {"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", **head, **content}


def component(name: str, package: Distribution) -> dict[str, Any]:
    """One package."""
    url = f"pkg:pypi/{name}@{package.version}"
    made: dict[str, Any] = {"type": "library", "bom-ref": url, "name": name, "version": package.version, "purl": url}
    if summary := package.metadata.get("Summary"):
        made["description"] = summary
    if licences := licence(package):
        made["licenses"] = licences
    return made


def licence(package: Distribution) -> list[dict[str, Any]]:
    """As its metadata says it: an SPDX expression, classifiers, or a name."""
    if expression := package.metadata.get("License-Expression"):
        return [{"expression": expression}]
    kinds = [line.split(" :: ") for line in package.metadata.get_all("Classifier") or ()]
    names = sorted({words[-1] for words in kinds if words[0] == "License" and len(words) > 1} - {"OSI Approved"})
    short = package.metadata.get("License", "").strip()
    if not names and short and "\n" not in short and len(short) <= 80:
        names = [short]
    return [{"license": {"name": each}} for each in names]


if __name__ == "__main__":
    sys.exit(main())
