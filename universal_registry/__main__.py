"""The entry point `ureg`: runs the command line, and says every error in one line."""

from __future__ import annotations

import errno
import os
import sys


def main() -> int:
    """Run the command in `sys.argv`; the exit code."""
    _keep_standard_files()
    try:
        from universal_registry.cli.main import main as run

        code = run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _reader_has_gone()
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the last one to see it
        return _tell(error)


def _tell(error: Exception) -> int:
    from universal_registry.kernel.errors import RegistryError

    if isinstance(error, RegistryError):
        return say(error)
    if isinstance(error, OSError) and error.strerror:
        file = error.filename or _output_that_fails(error)
        _write(f"ureg: {error.strerror}{f': {file}' if file else ''}")
        return 1
    from universal_registry.environment import debugging

    if debugging():
        raise error
    _write(f"ureg: a fault of ours: {type(error).__name__}: {error} (REGISTRY_DEBUG=1 shows where; please report it)")
    return 1


def _output_that_fails(error: OSError) -> str:
    """Standard output, if it is that which could not be written: every other file that we write has a name."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return ""
    _reader_has_gone()
    return "standard output"


def say(error: Exception) -> int:
    """Print one of our errors; its exit code."""
    _write(f"ureg: {error}")
    return int(getattr(error, "exit_code", 1))


def _write(line: str) -> None:
    # One line, whatever a message quotes: control characters could end it early or steer the terminal.
    shown = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in line)
    try:
        sys.stderr.write(shown + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, UnicodeError):
        _reader_has_gone()


def _reader_has_gone() -> int:
    """`| head`: no one reads on. Python must not complain when it closes its files."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    return 141


def _keep_standard_files() -> None:
    """Files 0, 1, 2 may be closed (`<&-`): what is opened next would take their numbers, and be written to by error."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)


if __name__ == "__main__":
    sys.exit(main())
