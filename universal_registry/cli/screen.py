"""A terminal's screen of one's own, for commands that look again and again."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from universal_registry.kernel.grid import cut


def on_terminal() -> bool:
    """Whether somebody sits there: keys can be read, and lines drawn over."""
    return sys.stdin.isatty() and sys.stdout.isatty()


@contextmanager
def screen() -> Iterator[None]:
    """A screen of its own, on which keys are read as they are pressed; afterwards the terminal is as it was. SIGTERM
    is raised as KeyboardInterrupt within it."""
    import termios
    import tty

    def end(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    keyboard = sys.stdin.fileno()
    was, ended = termios.tcgetattr(keyboard), signal.signal(signal.SIGTERM, end)
    try:
        tty.setcbreak(keyboard)
        sys.stdout.write("\x1b[?1049h\x1b[?25l")
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(keyboard, termios.TCSADRAIN, was)
        signal.signal(signal.SIGTERM, ended)


def draw(lines: list[str]) -> None:
    """Over what was drawn before; what does not fit the screen is counted."""
    width, height = os.get_terminal_size(sys.stdout.fileno())
    width, most = (width or 80), max(2, (height or 24) - 1)
    if len(lines) > most:
        lines = [*lines[: most - 1], f"and {len(lines) - most + 1} more lines"]
    sys.stdout.write("\x1b[H" + "".join(f"{cut(line, width - 1)}\x1b[K\r\n" for line in lines) + "\x1b[J")
    sys.stdout.flush()


def is_left(seconds: float) -> bool:
    """Wait so long, or until a key is pressed: `q` leaves, any other looks at once."""
    pressed = select.select([sys.stdin], [], [], seconds)[0]
    return bool(pressed) and os.read(sys.stdin.fileno(), 1) in (b"q", b"Q", b"")
