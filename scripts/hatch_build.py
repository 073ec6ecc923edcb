"""Build hook: compiles the catalogue, so that an installed `ureg` parses no YAML at start-up, and puts into the wheel
what stands beside the package in a checkout: the files of the service, and the front for sh."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BESIDE = {
    "deploy": "universal_registry/deploy",
    "cli/registry_cli.sh": "universal_registry/shell/sh/registry_cli.sh",
    "cli/by_daemon.sh": "universal_registry/shell/sh/by_daemon.sh",
}


class CompileCatalogue(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before each build (wheel, sdist, editable) in the build's own environment."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Writes registry/catalogue.json beside its YAML; a failure fails the build with the compiler's own words."""
        if self.target_name == "wheel" and version != "editable":  # which finds all in the checkout
            build_data["force_include"].update(BESIDE)
        command = [sys.executable, "-m", "universal_registry.registry.compile"]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the catalogue does not compile:\n{done.stdout}{done.stderr}")
