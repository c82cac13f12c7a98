"""Which gain file goes with a movie, where the name beside it does not settle that. Pure.

EPU copies the gain of Gatan cameras beside the movies, and of EER only the name: the file is in a
folder of the site. SerialEM writes CountRef or SuperRef for the first movie and uses it until the
next. Only dates in names are compared, never a file's time: clocks differ and copies keep no times.

Source: acquisition.md sections 1.10, 2.2, 3.3 and 6.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import PurePosixPath
from typing import NamedTuple

from mdcatch import names
from services.kit.sitetables import Camera

_STAMPS = tuple(
    re.compile(pattern)
    for pattern in (
        # FoilHole_..._20240831_200524, 20240830_103455_EER_...gain; old EPU leaves seconds out.
        r"(?<!\d)(?P<y>\d{4})(?P<m>\d\d)(?P<d>\d\d)_(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)?(?!\d)",
        # 2023-09-25_14.13.07_Grid9
        r"(?<!\d)(?P<y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)_(?P<H>\d\d)\.(?P<M>\d\d)\.(?P<S>\d\d)",
        # ..._Oct08_07.39.05: SerialEM leaves the year out
        r"(?<![A-Za-z])(?P<b>[A-Z][a-z]{2})(?P<d>\d\d)_(?P<H>\d\d)\.(?P<M>\d\d)\.(?P<S>\d\d)",
    )
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SERIALEM = re.compile(r"(CountRef|SuperRef)_.*\.(dm4|mrc|tiff?)", re.IGNORECASE)
# Where no year is known any one serves to compare two names; a leap year has every day.
_ANY_YEAR = datetime(2000, 7, 1)


class Choice(NamedTuple):
    """A gain file, why it, and a flag where a person should look.

    `of_session`: nothing ties it to this movie more than to others of the session.
    """

    path: str | None
    reason: str
    flag: str = ""  # gain_missing, gain_by_date, gain_by_order
    of_session: bool = False


def choose_gain(
    movie: str,
    stated: str | None,
    camera: Camera | None,
    beside: Iterable[str],
    in_folder: Iterable[str] = (),
    acquired_at: str | None = None,
) -> Choice:
    """Return the gain of a movie that is not gain-corrected.

    Parameters
    ----------
    movie
        Its path.
    stated
        Base name of the gain that metadata or header state.
    camera
        Of the site, for its patterns.
    beside
        Paths of the files in the movie's folder and those above it, the nearest first.
    in_folder
        Paths of the files in the camera's gain folder.
    acquired_at
        ISO 8601, where the metadata tells it; else the date in the movie's name counts.
    """
    near, far, when = list(beside), list(in_folder), _moment(movie, acquired_at)
    named = _by_name(stated, [*far, *near]) if stated else None
    if named is not None:
        return Choice(named, f"{_name(named)} is stated by the metadata")
    if not stated:
        found = _of_serialem(near, when) or _of_patterns(near, camera)
        if found is not None:
            return found
    # EPU's names of EER gains have dates: one is valid until the next.
    dated = _newest([path for path in far if path.lower().endswith(".gain")], when)
    if dated is not None:
        absent = f"{stated} is not there; " if stated else ""
        reason = f"{absent}{_name(dated)} is the newest before the movie"
        return Choice(dated, reason, "gain_by_date")
    why = f"{stated} is stated by the metadata and not there" if stated else "no file fits"
    return Choice(None, why, "gain_missing", of_session=not stated)


def _of_patterns(near: list[str], camera: Camera | None) -> Choice | None:
    """Return the nearest file that the camera's patterns name, else the built-in ones of EPU."""
    is_gain = camera.is_gain if camera is not None and camera.gain else _is_usual
    found = next((path for path in near if is_gain(_name(path))), None)
    if found is None:
        return None
    return Choice(found, f"{_name(found)} is named like a gain", of_session=True)


def _is_usual(name: str) -> bool:
    return names.classify(name).role is names.Role.GAIN and not _SERIALEM.fullmatch(name)


def _of_serialem(near: list[str], when: datetime | None) -> Choice | None:
    references = [path for path in near if _SERIALEM.fullmatch(_name(path))]
    newest = _newest(references, when)
    if newest is not None:
        return Choice(newest, f"{_name(newest)} is the newest before the movie")
    if len(references) == 1:
        only = "the only reference beside the movie"
        return Choice(references[0], only, "gain_by_order", of_session=True)
    return None


def needs_gain(format: str, detector_id: str | None, gain_corrected: bool | None = None) -> bool:
    """Tell whether frames still need their gain: Falcons write MRC with the gain applied.

    Parameters
    ----------
    format
        mrc, tiff or eer.
    detector_id
        EPU's: BM-Falcon, EF-Falcon, EF-CCD.
    gain_corrected
        What the camera's own file says.
    """
    if gain_corrected is not None:
        return not gain_corrected
    return not (format == "mrc" and "falcon" in (detector_id or "").lower())


def date_in(path: str, near: datetime) -> datetime | None:
    """Return the date and time in a file name, by the clock of whoever wrote it.

    Parameters
    ----------
    path
        Only its last component counts.
    near
        A year that is left out is chosen so that the date is nearest to this one.
    """
    for pattern in _STAMPS:
        for found in reversed(list(pattern.finditer(_name(path)))):
            part = found.groupdict()
            years = (part["y"],) if "y" in part else (near.year - 1, near.year, near.year + 1)
            dates = [date for year in years if (date := _date(part, int(year)))]
            if dates:
                return min(dates, key=lambda date: abs(date - near))
    return None


def _date(part: dict[str, str], year: int) -> datetime | None:
    if part.get("b", "Jan") not in _MONTHS:
        return None
    month = _MONTHS.index(part["b"]) + 1 if "b" in part else int(part["m"])
    clock = (int(part["d"]), int(part["H"]), int(part["M"]), int(part["S"] or 0))
    try:
        return datetime(year, month, *clock)
    except ValueError:
        return None


def _moment(movie: str, acquired_at: str | None) -> datetime | None:
    """Return when a movie was taken: as its name says, for gains are named by the same clock."""
    stated: datetime | None = None
    if acquired_at:
        try:
            # Names are in local time, and a time stamp states the local time before its zone.
            stated = datetime.fromisoformat(acquired_at).replace(tzinfo=None, microsecond=0)
        except ValueError:
            stated = None
    return date_in(movie, stated or _ANY_YEAR) or stated


def _newest(paths: list[str], when: datetime | None) -> str | None:
    """Return the path with the latest date that is not after `when`."""
    if when is None:
        return None
    dated = ((date_in(path, when), path) for path in paths)
    known = [(date, path) for date, path in dated if date is not None and date <= when]
    return max(known)[1] if known else None


def _by_name(stated: str, paths: list[str]) -> str | None:
    """Find a base name; a twin that can be read as it is goes before what is stated.

    For EER a `.gain` is multiplied and its converted MRC divided; a DM4 goes last.
    """
    stem, wanted = PurePosixPath(stated).stem.lower(), stated.lower()
    better = {".mrc": (".gain",), ".dm4": (".mrc", ".tif", ".tiff")}
    twins = [stem + suffix for suffix in better.get(PurePosixPath(wanted).suffix, ())]
    for name in (*twins, wanted):
        found = next((path for path in paths if _name(path).lower() == name), None)
        if found is not None:
            return found
    return None


def _name(path: str) -> str:
    return PurePosixPath(path).name
