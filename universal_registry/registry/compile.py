"""`catalogue.yaml` to `catalogue.json`: `python -m universal_registry.registry.compile [--check]`.

Needs only ruamel.yaml beside the standard library, so that a build can run it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from universal_registry.kernel.errors import Invalid, RegistryError
from universal_registry.registry.catalogue_rules import normalise
from universal_registry.registry.words import digest_of_source

SOURCE = Path(__file__).with_name("catalogue.yaml")
COMPILED = Path(__file__).with_name("catalogue.json")


def parse_source(source: bytes) -> Any:
    """The plain data of the YAML (1.2: `no` and `on` are words; a repeated key is refused). Raises Invalid."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(source.decode())
    except (YAMLError, UnicodeDecodeError) as error:
        raise Invalid(f"catalogue: not YAML: {error}") from error


def compile_source(source: bytes) -> bytes:
    """The JSON of the catalogue; the same YAML gives the same bytes. Raises Invalid for a broken rule."""
    data = parse_source(source)
    if not isinstance(data, dict):
        raise Invalid("catalogue: the file is no mapping")
    return json.dumps(normalise(data, digest_of_source(source)), ensure_ascii=False, separators=(",", ":")).encode()


def write_compiled(target: Path, compiled: bytes) -> None:
    """Puts the JSON in place at once, so that no reader ever sees half of it."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".catalogue-", suffix=".json")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(compiled)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def write_if_possible(target: Path, compiled: bytes) -> bool:
    """Like `write_compiled`; False where the folder cannot be written (an installation of another user: the caller
    has the catalogue anyway, and only compiles it again next time)."""
    try:
        write_compiled(target, compiled)
    except OSError:
        return False
    return True


def main(arguments: list[str]) -> int:
    """Compiles, or with `--check` says whether the JSON is up to date. Returns the exit code."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m universal_registry.registry.compile [--check]", file=sys.stderr)
        return 2
    try:
        compiled = compile_source(SOURCE.read_bytes())
        current = COMPILED.exists() and COMPILED.read_bytes() == compiled
        if not arguments:
            # Written even when it is current, so that `make` sees a file newer than its sources.
            write_compiled(COMPILED, compiled)
    except (RegistryError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if arguments and not current:
        print(f"{COMPILED.name} is out of date: run python -m universal_registry.registry.compile", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
