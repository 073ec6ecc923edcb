"""The command line, from its words to an exit code."""

from __future__ import annotations

import os
import sys


def main(words: list[str] | None = None) -> int:
    """Run one command line (`sys.argv` when absent); its exit code. Raises RegistryError, also for wrong usage."""
    words = _arguments() if words is None else words
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Whatever the locale: our text is UTF-8, and an argument that is not is given back as it came.
            stream.reconfigure(encoding="utf-8", errors="surrogateescape" if stream is sys.stdout else None)
    if words[:1] == ["get"]:
        from universal_registry.cli.plain_get import parse

        question = parse(words[1:])
        if question is not None:
            from universal_registry.cli.getting import show

            show(question)
            return 0
    from universal_registry.cli.root import run

    return run(words)


def _arguments() -> list[str]:
    """What stands after the program's name: UTF-8, whatever the locale makes Python think."""
    if sys.getfilesystemencoding() == "utf-8":
        return sys.argv[1:]
    return [os.fsencode(word).decode("utf-8", "surrogateescape") for word in sys.argv[1:]]
