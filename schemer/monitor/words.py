"""An overview in words: single lines for titles, and a page for terminals and logs."""

import time
from collections.abc import Iterator
from textwrap import wrap

from schemer import overview
from schemer.overview import Overview
from schemer.scheme import Scheme

_STORY_LINES = 3
_LONGEST = 240  # of a foreign line


def headline(seen: Overview) -> str:
    """Return in one line what the Scheme is doing."""
    if seen.running is not None:
        since = f" since {clock(seen.running.since)}" if seen.running.since else ""
        mode = ", strict" if seen.running.strict else ""
        return f"running{since} (process {seen.running.pid}{mode}){_asked(seen)}"
    if seen.relion:
        return f"running under relion_schemer, as its lock says{_asked(seen)}"
    return f"stopped: {seen.ended}" if seen.ended else "stopped, never run here"


def _asked(seen: Overview) -> str:
    return ", asked to abort" if seen.abort_asked else ""


def whereabouts(seen: Overview) -> str:
    """Return in one line at which node it is and what happens there."""
    if seen.scheme is None:
        return f"scheme.star cannot be read: {seen.problem}"
    node = seen.current_node
    if seen.waits_until is not None:
        left = max(0.0, seen.waits_until - seen.at)
        return f"at {node}, waits until {clock(seen.waits_until)} ({duration(left)} left)"
    row = next((one for one in seen.jobs if one.node == node), None)
    words = [f"at {node}", *([one for one in (row.folder, row.status) if one] if row else [])]
    return ", ".join(words)


def clock(at: float) -> str:
    """Return a time of day, with the date where it is not today's, in local time."""
    there = time.localtime(at)
    same_day = time.strftime("%F", there) == time.strftime("%F")
    return time.strftime("%H:%M:%S" if same_day else "%F %H:%M:%S", there)


def duration(seconds: float) -> str:
    """Return a duration with its unit: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def variables(scheme: Scheme) -> list[tuple[str, str, str, str]]:
    """Return (kind, name, value, reset value) of every variable, as text."""
    return [
        (kind, name, text(variable.value), text(variable.reset))
        for kind in ("float", "bool", "string")
        for name, variable in sorted(getattr(scheme, f"{kind}s").items())
    ]


def text(value: float | bool | str) -> str:
    """Return a variable's value as a person writes it."""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def page(seen: Overview, width: int = 80) -> list[str]:
    """Return the overview as lines of at most `width` characters."""
    lines = [f"{seen.name}: {headline(seen)}", f"  {whereabouts(seen)}"]
    if seen.scheme is not None:
        if seen.problem:
            lines.append(f"  {seen.problem}")
        lines += ["", *jobs(seen), "", *_values(seen.scheme, width)]
    for name, output in (("run.err", seen.errors), (f"{seen.job}run.err", seen.job_errors)):
        lines += ["", f"  last line of {name}: {output[-1][:_LONGEST]}"] if output else []
    if seen.story:
        lines += ["", *(f"  {line}" for line in seen.story[-_STORY_LINES:])]
    return [
        part
        for line in map(overview.plain, lines)
        for part in ([line] if len(line) <= width else wrap(line, width, subsequent_indent="    "))
    ]


def jobs(seen: Overview) -> Iterator[str]:
    """Yield a line for each job: mark of the current one, node, mode, folder, status."""
    longest = max((len(one.node) for one in seen.jobs), default=0)
    for one in seen.jobs:
        mark = "*" if one.node == seen.current_node else " "
        started = one.status if one.has_started else f"not started {one.status}".rstrip()
        yield f"{mark} {one.node:<{longest}}  {one.mode:<8}  {one.folder or '-':<22}  {started}"


def _values(scheme: Scheme, width: int) -> Iterator[str]:
    """Yield the variables, several on a line."""
    line = " "
    for _, name, value, _ in variables(scheme):
        entry = f" {name}={value}"
        if len(line) + len(entry) > width and line.strip():
            yield line
            line = " "
        line += entry
    if line.strip():
        yield line
