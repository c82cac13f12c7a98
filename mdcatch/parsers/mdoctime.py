"""Times in an mdoc: three forms of dates, time stamps, file names, and the order they give.

Source: acquisition.md sections 3.3, 4 and 10 (11).
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

_TIME = re.compile(r"(\d{1,4})-([A-Za-z]{3})-(\d{1,4})\s+(\d\d?):(\d\d):(\d\d)", re.ASCII)
_YEARS = range(1990, 2101)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_STAMP_START = datetime(2020, 1, 1)  # by the microscope's clock, whose zone no mdoc tells
_NAME_TIMES = (
    re.compile(r"_(\d{8})_(\d{6})(?=[_.])", re.ASCII),  # TFS: _20231021_000416_
    re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d\.\d\d\.\d\d)", re.ASCII),  # SerialEM, if so chosen
)


def time_of(text: str, *, day_last: bool) -> str | None:
    """Return a date of an mdoc as ISO 8601 without zone; None when it is no date.

    Parameters
    ----------
    text
        Such as `06-Jun-23  23:51:26`, since SerialEM 4.1 `06-Jun-2023  23:51:26`.
    day_last
        The first number is the year.
    """
    found = _TIME.fullmatch(text.strip())
    if found is None or found[2].lower() not in _MONTHS:
        return None
    first, last = found[1], found[3]
    year, day = (first, last) if day_last or len(first) == 4 else (last, first)
    if len(year) not in (2, 4):
        return None
    month = _MONTHS.index(found[2].lower()) + 1
    hour, minute, second = (int(found[number]) for number in (4, 5, 6))
    century = 2000 if len(year) == 2 else 0
    try:
        time = datetime(int(year) + century, month, int(day), hour, minute, second)
    except ValueError:
        return None
    return time.isoformat() if time.year in _YEARS else None


def time_of_stamp(text: str) -> str | None:
    """Return SerialEM's `TimeStamp`, s since 2020-01-01, as ISO 8601 without zone."""
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII):
        return None
    return (_STAMP_START + timedelta(seconds=int(text))).isoformat()


def acquisition_order(
    dates: Sequence[str | None], stamps: Sequence[str | None], names: Sequence[str | None]
) -> list[int]:
    """Return the numbers of the sections in the order in which they were taken.

    Parameters
    ----------
    dates
        ISO 8601, one per section; used when all are known.
    stamps
        Time stamps as text; used when all are known and a date is not.
    names
        Of the movies; used when all hold a time and nothing better is known. Else the order of
        the file counts.
    """
    stamped = [stamp.zfill(12) if stamp and time_of_stamp(stamp) else "" for stamp in stamps]
    named = [_time_in(name or "") for name in names]
    for keys in ([date or "" for date in dates], stamped, named):
        if all(keys):
            return sorted(range(len(keys)), key=keys.__getitem__)
    return list(range(len(dates)))


def _time_in(name: str) -> str:
    """Digits of the time in a movie's name, "" where there is none."""
    found = next(filter(None, (pattern.search(name) for pattern in _NAME_TIMES)), None)
    return "" if found is None else re.sub(r"\D", "", found[1] + found[2])
