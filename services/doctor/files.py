"""Gains, MTFs, trained models and keys: are the files there that the configuration names?"""

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from algorithms.formats import star
from services.doctor.finding import Finding, Look
from services.doctor.roots import answered
from services.kit.errors import Misuse
from services.kit.keys import load
from services.kit.sitetables import Camera, Microscope

# How far a search for gain files goes: enough for a week of sessions, short enough for a person.
_ENTRIES, _SEARCH_S = 50_000, 4.0
_USUAL_KV = (300.0, 200.0, 120.0, 100.0)
_MTF_COLUMNS = ("rlnResolutionInversePixel", "rlnMtfValue")


def _cameras(look: Look) -> Iterator[tuple[str, Microscope, Camera]]:
    for microscope in look.site.microscopes:
        for camera in microscope.cameras:
            yield f"{microscope.name}/{camera.model}", microscope, camera


def gains(look: Look) -> Iterator[Finding]:
    """Yield gain folders that are not there, and patterns that match nothing."""
    wanted = {pattern.lower() for _, _, camera in _cameras(look) for pattern in camera.gain}
    folders = [
        Path(root.path)
        for root in look.site.roots.values()
        if root.role != "metadata" and root.path not in look.asleep
    ]
    seen, everything = _search(folders, wanted) if wanted and folders else (wanted, True)
    for subject, _, camera in _cameras(look):
        for pattern in camera.gain:
            yield _pattern(subject, pattern, pattern.lower() in seen, everything)
        if camera.gain_folder is not None:
            yield _gain_folder(subject, Path(camera.gain_folder))


def _pattern(subject: str, pattern: str, is_seen: bool, everything: bool) -> Finding:
    if is_seen:
        return Finding.of("ok", "gain", subject, f"{pattern} names gain files")
    where = "no file of the roots" if everything else f"none of the first {_ENTRIES} files"
    detail = f"the pattern {pattern} matches {where}"
    remedy = "correct cameras.gain, or take an exposure with this camera"
    return Finding.of("warning", "gain", subject, detail, remedy)


def _search(folders: list[Path], patterns: set[str]) -> tuple[set[str], bool]:
    """Return the patterns that match a file, and whether everything was looked at."""
    seen: set[str] = set()
    probes = {pattern: Camera(model="any", gain=(pattern,)) for pattern in patterns}
    deadline, left = time.monotonic() + _SEARCH_S, _ENTRIES
    waiting = deque(folders)

    def search() -> None:
        nonlocal left
        while waiting and left > 0 and len(seen) < len(probes) and time.monotonic() < deadline:
            try:
                with os.scandir(waiting.popleft()) as entries:
                    for entry in entries:
                        left -= 1
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(Path(entry.path))
                        seen.update(p for p, probe in probes.items() if probe.is_gain(entry.name))
            except OSError:
                continue  # told by the check of the roots

    return seen, answered(search) and not waiting


def _gain_folder(subject: str, folder: Path) -> Finding:
    names: list[str] = []
    problems: list[str] = []

    def look() -> None:
        try:
            names.extend(os.listdir(folder))
        except OSError as error:
            problems.append(error.strerror or "it fails")

    if not answered(look):
        problems.append("it does not answer")
    if problems:
        detail = f"gain_folder {folder} cannot be read: {problems[0]}"
        return Finding.of("error", "gain", subject, detail, "mount it, or correct the path")
    if not any(name.lower().endswith((".gain", ".mrc", ".tif", ".tiff")) for name in names):
        detail = f"gain_folder {folder} holds no gain file (.gain, .mrc, .tiff)"
        return Finding.of("warning", "gain", subject, detail, "copy the camera's gains there")
    return Finding.of("ok", "gain", subject, f"gain_folder {folder} can be read")


def mtfs(look: Look) -> Iterator[Finding]:
    """Yield MTF files that are not there, or are none."""
    for subject, microscope, camera in _cameras(look):
        for mode, pattern in camera.mtf.items():
            fixed = microscope.voltage_kV is not None or "{kV}" not in pattern
            voltages = (microscope.voltage_kV or _USUAL_KV[0],) if fixed else _USUAL_KV
            paths = [camera.mtf_file(mode, voltage) for voltage in voltages]
            found = [path for path in paths if path is not None and path.is_file()]
            if not found:
                detail = f"MTF of {mode}: {paths[0]} is not there"
                remedy = "copy the file there, or correct cameras.mtf"
                yield Finding.of("error", "mtf", subject, detail, remedy)
            for path in found:
                yield _mtf(subject, path)


def _mtf(subject: str, path: Path) -> Finding:
    problem = ""
    try:
        tables = star.load(path)
        if not any(all(c in t.columns for c in _MTF_COLUMNS) for t in tables.values()):
            problem = f"has no table with {' and '.join(_MTF_COLUMNS)}"
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {error}"
    if problem:
        remedy = "take the file of the camera's maker, in RELION's STAR form"
        return Finding.of("error", "mtf", subject, f"{path} {problem}", remedy)
    return Finding.of("ok", "mtf", subject, f"{path} is an MTF")


def models(look: Look) -> Iterator[Finding]:
    """Yield a trained picking model that is not there."""
    model = look.site.defaults.picker_model
    if model is None:
        return
    if Path(model).is_file():
        yield Finding.of("ok", "picker", "defaults.picker_model", f"{model} is there")
    else:
        yield Finding.of(
            "error", "picker", "defaults.picker_model", f"{model} is not a file", "correct the path"
        )


def keys(look: Look) -> Iterator[Finding]:
    """Yield keys that are missing, no keys, or readable by others."""
    security = look.site.security
    named = [("security.key", security.key), ("security.server", security.server)]
    named += [(f"security.allowed[{n}]", path) for n, path in enumerate(security.allowed, 1)]
    for subject, path in named:
        if path is None:
            continue
        try:
            is_secret = load(Path(path)).secret is not None
        except Misuse as error:
            detail, _, remedy = str(error).partition(": ")
            remedy = remedy if "chmod" in remedy else f"{remedy}; make one: coldstream keys new"
            yield Finding.of("error", "key", subject, detail, remedy)
            continue
        if is_secret != (subject == "security.key"):
            part = "a secret key: give away only .public" if is_secret else "a public key"
            wanted = "the .public file" if is_secret else "the .secret file"
            yield Finding.of("error", "key", subject, f"{path} is {part}", f"give {wanted}")
        else:
            yield Finding.of("ok", "key", subject, f"{path} is a key")
