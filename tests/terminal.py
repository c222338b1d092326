"""A terminal of a known width, and what was printed there."""

import io
import sys


class Terminal(io.StringIO):
    """What was written to it, which takes it for a terminal."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch, width: int = 40) -> Terminal:
    """stdout and stderr as one colour terminal. No fixture: pytest resets both before the test's body."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(width))
    return stream
