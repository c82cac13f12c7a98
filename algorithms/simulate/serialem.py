"""How SerialEM names a session's files, and the mdoc and TIFF it writes for a movie.

    <out>/frames/<name>_<n>_<Mmmdd_hh.mm.ss>.tif         LZW, description with the gain's name
    <out>/frames/<name>_<n>_<Mmmdd_hh.mm.ss>.tif.mdoc    frame mdoc in one of three dialects
    <out>/frames/CountRef_<first movie>.mrc              gain reference

The truth goes into `<out>_truth` as for EPU sessions.

Source: acquisition.md sections 3.1 to 3.3; simulation.md section 7.
"""

import io
from datetime import UTC, datetime, timedelta

import numpy as np
import tifffile
from numpy.typing import NDArray

from algorithms.simulate.epu import Exposure, plan_session
from algorithms.simulate.recipe import Recipe

DIALECTS = ("classic", "modern", "direct-electron")
"""SerialEM before July 2022 (two-digit years), since then, and with a Direct Electron camera."""

FRAMES = "frames"
_FRAME_TIME_S = 0.1
_STAMP_START = datetime(2020, 1, 1, tzinfo=UTC)
_ROTATION_FLIP = 0


def shot_stem(recipe: Recipe, exposure: Exposure) -> str:
    """Name of a movie without its suffix."""
    return f"{recipe.name}_{exposure.index:05d}_{exposure.acquired_at:%b%d_%H.%M.%S}"


def gain_name(recipe: Recipe, seed: int) -> str:
    """Name of the gain reference: that of the first movie is in it."""
    prefix = "SuperRef" if recipe.super_resolution_factor == 2 else "CountRef"
    return f"{prefix}_{shot_stem(recipe, plan_session(recipe, seed)[0])}.mrc"


def frame_mdoc(
    recipe: Recipe,
    exposure: Exposure,
    nominal_defocus_A: float,
    *,
    gain: str,
    dialect: str = "modern",
    session: str = "session",
) -> str:
    """The frame mdoc of one movie.

    Parameters
    ----------
    recipe, exposure
        What was taken.
    nominal_defocus_A
        What was asked for, underfocus positive.
    gain
        Name of the gain reference; Direct Electron cameras need none.
    dialect
        One of `DIALECTS`.
    session
        Name of the session, for the path on the camera's computer.
    """
    if dialect not in DIALECTS:
        raise ValueError(f"dialect {dialect!r}; known are {', '.join(DIALECTS)}")
    year = "%y" if dialect == "classic" else "%Y"
    when = exposure.acquired_at.strftime(f"%d-%b-{year}  %H:%M:%S")
    keys = [*_common(recipe, exposure, nominal_defocus_A)]
    if dialect != "direct-electron":
        keys.insert(0, ("GainReference", gain))
    keys += [
        ("SubFramePath", rf"X:\coldstream\{session}\{FRAMES}\{shot_stem(recipe, exposure)}.tif"),
        ("NumSubFrames", str(recipe.n_frames)),
        ("FrameDosesAndNumber", f"{recipe.dose_per_frame_e_A2:.5g} {recipe.n_frames}"),
        ("DateTime", when),
    ]
    keys += {"classic": _classic, "modern": _modern, "direct-electron": _direct_electron}[dialect](
        recipe, exposure
    )
    title = f"T = SerialEM: Simulated on Titan Krios D{recipe.microscope_id}".ljust(58)
    head = [f"{title}{when}    ", f"Voltage = {recipe.voltage_kV:g}", "", "[FrameSet = 0]"]
    end = "\r\n" if dialect == "classic" else "\n"
    return end.join([*head, *(f"{key} = {value}" for key, value in keys), ""])


def _common(recipe: Recipe, exposure: Exposure, nominal_defocus_A: float) -> list[tuple[str, str]]:
    """What every dialect says, in SerialEM's order."""
    x, y, z = (1e6 * place for place in exposure.stage_m)
    factor = recipe.super_resolution_factor
    exposure_time_s = recipe.n_frames * _FRAME_TIME_S
    dose = recipe.dose_per_frame_e_A2 * recipe.n_frames
    rate = dose * (factor * recipe.pixel_size_A) ** 2 / exposure_time_s
    return [
        ("TiltAngle", "0.000999877"),
        ("StagePosition", f"{x:.6g} {y:.6g}"),
        ("StageZ", f"{z:.6g}"),
        ("Magnification", str(recipe.magnification)),
        ("Intensity", "0.127476"),
        ("ExposureDose", f"{dose:.6g}"),
        ("DoseRate", f"{rate:.6g}"),
        ("PixelSpacing", f"{recipe.pixel_size_A:.6g}"),
        ("SpotSize", "7"),
        ("Defocus", f"{-nominal_defocus_A * 1e-4 + 1.3:.6g}"),
        ("ImageShift", "{:.6g} {:.6g}".format(*exposure.beam_shift)),
        ("RotationAngle", "174.13"),
        ("ExposureTime", f"{exposure_time_s:.6g}"),
        ("Binning", "0.5" if factor == 2 else "1"),
        ("CameraIndex", "0"),
        ("DividedBy2", "0"),
        ("OperatingMode", "1"),
        ("MagIndex", "33"),
        ("LowDoseConSet", "4"),
        ("CountsPerElectron", "1"),
        ("TargetDefocus", f"{-nominal_defocus_A * 1e-4:.6g}"),
    ]


def _classic(recipe: Recipe, exposure: Exposure) -> list[tuple[str, str]]:
    return [("FilterSlitAndLoss", "20 0")]


def _modern(recipe: Recipe, exposure: Exposure) -> list[tuple[str, str]]:
    factor = recipe.super_resolution_factor
    area = exposure.index % recipe.areas_per_hole + 1
    hole = exposure.index // recipe.areas_per_hole % recipe.holes_per_stage + 1
    stamp = exposure.acquired_at - _STAMP_START
    return [
        ("NavigatorLabel", f"{exposure.square_id[-3:]}-{hole}"),
        ("FilterSlitAndLoss", "20 0"),
        ("MultishotHoleAndPosition", f"{hole} {area}"),
        ("UncroppedSize", f"-{recipe.nx // factor} -{recipe.ny // factor}"),
        ("RotationAndFlip", str(_ROTATION_FLIP)),
        ("TimeStamp", str(stamp // timedelta(seconds=1))),
    ]


def _direct_electron(recipe: Recipe, exposure: Exposure) -> list[tuple[str, str]]:
    return [
        ("CameraPixelSize", "6.5"),
        ("FramesPerSecond", f"{1 / _FRAME_TIME_S:g}"),
        ("TotalNumberOfFrames", str(recipe.n_frames)),
        ("PreexposureTime(s)", "0"),
        ("SensorModuleSerialNumber", "SIM-0001"),
        ("Image Processing - Mode [counting]", "On"),
    ]


def encode_movie(frames: NDArray[np.uint8], pixel_size_A: float, gain: str) -> bytes:
    """LZW TIFF of frames `[F, ny, nx]` in MRC orientation, described as SerialEM does."""
    buffer = io.BytesIO()
    per_inch = 2.54e8 / pixel_size_A
    text = f"SerialEMCCD: Dose frac. image, scaled by 1.00  r/f {_ROTATION_FLIP}\n{gain}"
    with tifffile.TiffWriter(buffer) as tiff:
        for number, frame in enumerate(frames):
            tiff.write(
                np.ascontiguousarray(frame[::-1]),
                compression="lzw",
                photometric="minisblack",
                resolution=(per_inch, per_inch),
                resolutionunit="INCH",
                description=None if number else text,
                metadata=None,
                software=False,
            )
    return buffer.getvalue()


def spoil_mdoc(fault: str | None, mdoc: str) -> bytes | None:
    """The bytes that reach the disk in place of `mdoc`; None = no file at all."""
    if fault == "movie_only":
        return None
    content = mdoc.encode()
    if fault == "doctype_xml":  # an mdoc has no entities, but a path can lead out of the session
        return content.replace(b"X:\\coldstream", b"\\\\host\\share\\..\\..\\etc")
    if fault == "unreadable_xml":
        return content[: len(content) // 2] + b"\x00\xff\xfe[[" * 40
    return content
