"""One line per event, for people who tail: time, service, level, kind, key=value.

Times are UTC. Values with blanks are quoted. The same line goes to standard output and to
`.coldstream/log/<service>.log`.
"""

import sys
import time
from pathlib import Path
from typing import IO

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def format_value(value: object) -> str:
    """Return a value as it stands in a log line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    # A name from a file must not steer the terminal of the person who tails.
    text = "".join(c if c.isprintable() or c.isspace() else "?" for c in str(value))
    if not text or any(c.isspace() or c in '"=' for c in text):
        return '"' + " ".join(text.split()).replace('"', "'") + '"'
    return text


def format_line(at: float, service: str, level: str, kind: str, fields: dict[str, object]) -> str:
    """Return one log line without its line end."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    pairs = " ".join(f"{name}={format_value(value)}" for name, value in fields.items())
    return f"{stamp} {service} {level} {kind} {pairs}".rstrip()


class Log:
    """Writes log lines.

    Parameters
    ----------
    service
        Name shown in each line.
    file
        Log file to append to, or None.
    level
        Lowest level written.
    """

    def __init__(self, service: str, file: Path | None = None, level: str = "INFO"):
        self.service = service
        self._lowest = LEVELS.index(level)
        self._file: IO[str] | None = open(file, "a", buffering=1) if file else None

    def line(self, kind: str, level: str = "INFO", /, **fields: object) -> None:
        """Write one line."""
        if LEVELS.index(level) < self._lowest:
            return
        text = format_line(time.time(), self.service, level, kind, fields)
        if self._file is not None:
            self._file.write(text + "\n")
        try:
            print(text, flush=True)
        except BrokenPipeError:
            # The terminal is gone; the file still tells everything.
            sys.stdout = open("/dev/null", "w")

    def close(self) -> None:
        """Close the log file."""
        if self._file is not None:
            self._file.close()
            self._file = None
