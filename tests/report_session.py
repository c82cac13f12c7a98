"""A made-up session for the report: events as the journals hold them, and a project folder."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import mrcfile
import numpy as np

from algorithms.formats import star
from algorithms.formats.star import Table
from services.kit.events import (
    SCHEMA,
    Body,
    Event,
    MicrographCorrected,
    MicrographCtf,
    MicrographImported,
    MicrographRefused,
    MovieImported,
    MovieRefused,
    MovieSeen,
    MovieSettled,
    OpticsGrouped,
    ParticlesExtracted,
    ParticlesPicked,
    SessionOpened,
    WaitStarted,
    subject_of,
)

START = 1_795_600_000.0  # 2026-11-25
SQUARE = "Images-Disc1/GridSquare_7912/Data"
PIXEL_A = 1.5
BOX_PX = 64


@dataclass
class Journal:
    """Collects envelopes the way a producer's journal would."""

    events: list[Event] = field(default_factory=list)

    def add(self, at: float, producer: str, body: Body) -> None:
        """Append one event."""
        number = len(self.events) + 1
        self.events.append(
            Event(
                schema=SCHEMA,
                producer=producer,
                epoch=b"e" * 16,
                seq=number,
                uid=number.to_bytes(16, "big"),
                cause=None,
                session="Simulated",
                at=START + at,
                subject=subject_of(body),
                body=body,
                prev=b"",
                hash=b"",
            )
        )


def movie_name(index: int) -> str:
    """Return the identity of movie `index`, as the watcher would name it."""
    return f"{SQUARE}/FoilHole_79{index:03d}_Data_2710_5_20261125_{101500 + index:06d}"


def settled(movie: str, at: float) -> MovieSettled:
    """Return a complete movie whose last byte was written at `at`."""
    return MovieSettled(
        movie=movie,
        path=f"{movie}_fractions.tiff",
        metadata_path=f"{movie}.xml",
        format="tiff",
        size_bytes=6_000_000,
        mtime_ns=int((START + at) * 1e9),
        digest="0" * 64,
        width_px=1024,
        height_px=1024,
        n_frames=20,
        voltage_kV=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
        pixel_size_A=PIXEL_A,
        dose_e_A2=30.0,
        dose_per_frame_e_A2=1.5,
        detector="Falcon 4i",
        optics_group=1,
        **_where(movie, at),
    )


def _where(movie: str, at: float) -> dict:
    """Return where and when a movie was taken: six holes in a square, four movies in a hole."""
    number = re.search(r"FoilHole_79(\d+)_", movie)
    if number is None:
        return {}
    hole = int(number[1]) // 4
    square = hole // 6
    return {
        "grid_square": f"79120{square:02d}",
        "foil_hole": f"8{hole:04d}",
        "beam_shift": (0.1 * (hole % 3), 0.1 * (hole // 3 % 2)),
        "stage_um": (60.0 * (square % 5) + 4 * (hole % 3), 60.0 * (square // 5) + hole % 2, 80.0),
        "acquired_at": datetime.fromtimestamp(START + at, UTC).isoformat(),
    }


def corrected(movie: str, total_px: float, size_px: int) -> MicrographCorrected:
    """Return an aligned movie."""
    root = f"MotionCorr/job002/Movies/{movie}_fractions"
    return MicrographCorrected(
        movie=movie,
        key="k",
        token=1,
        micrograph=f"{root}.mrc",
        micrograph_nodw=None,
        power_spectrum=f"{root}_PS.mrc",
        metadata_star=f"{root}.star",
        width_px=size_px,
        height_px=size_px,
        pixel_size_A=PIXEL_A,
        motion_total_px=total_px,
        motion_early_px=0.3 * total_px,
        motion_late_px=0.7 * total_px,
        converged=True,
        hot_pixels=20,
        took_s=2.1,
    )


def fitted(movie: str, defocus_A: float, resolution_A: float, size_px: int) -> MicrographCtf:
    """Return a fitted CTF."""
    return MicrographCtf(
        movie=movie,
        key="k",
        token=1,
        micrograph=f"MotionCorr/job002/Movies/{movie}_fractions.mrc",
        micrograph_nodw=None,
        ctf_image=f"CtfFind/job003/Movies/{movie}_fractions_PS.ctf:mrc",
        metadata_star=f"CtfFind/job003/Movies/{movie}_fractions.star",
        optics_group=1,
        width_px=size_px,
        height_px=size_px,
        pixel_size_A=PIXEL_A,
        voltage_kV=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
        original_pixel_size_A=PIXEL_A,
        acquired_at="",
        defocus_u_A=defocus_A + 90,
        defocus_v_A=defocus_A - 90,
        defocus_angle_deg=35.0,
        phase_shift_deg=0.0,
        figure_of_merit=0.12,
        max_resolution_A=resolution_A,
        reliable=True,
        took_s=1.2,
        ice_ring_density=1.4,
        mean_intensity=1100.0 - 0.01 * defocus_A,
        iciness=0.5 + 0.1 * (resolution_A - 3.4),
        ice_peak_sigma=1.1 + 0.3 * (resolution_A - 3.4),
    )


def picked(movie: str, count: int) -> ParticlesPicked:
    """Return found coordinates."""
    return ParticlesPicked(
        movie=movie,
        key="k",
        token=1,
        coordinates=f"AutoPick/job005/Movies/{movie}_fractions_autopick.star",
        n_particles=count,
        mean_figure_of_merit=1.4,
        took_s=0.4,
        nearest_neighbour_A=2000.0 / max(count, 1) ** 0.5,
    )


def extracted(movie: str, count: int) -> ParticlesExtracted:
    """Return extracted particles."""
    root = f"Extract/job006/Movies/{movie}_fractions"
    return ParticlesExtracted(
        movie=movie,
        key="k",
        token=1,
        stack=f"{root}.mrcs",
        metadata_star=f"{root}_extract.star",
        n_particles=count,
        box_px=BOX_PX,
        pixel_size_A=4.5,
        took_s=0.3,
    )


def tell_session(count: int, size_px: int = 256, seed: int = 1) -> Journal:
    """Return the events of `count` movies, of which three meet trouble and one waits."""
    rng = np.random.default_rng(seed)
    journal = Journal()
    journal.add(0, "mdcatch", SessionOpened(name="Simulated_apo", raw="/raw/apo", software="EPU"))
    journal.add(1, "mdcatch", _optics())
    for index in range(count):
        movie, at = movie_name(index), 5.0 + 15.0 * index
        journal.add(at, "mdcatch", MovieSeen(movie=movie, path=f"{movie}_fractions.tiff"))
        if index % 16 == 5:
            refused = MovieRefused(movie=movie, code="TRUNCATED", detail=TRUNCATED_DETAIL)
            journal.add(at + 3, "mdcatch", refused)
            continue
        settle_s = 2.0 + rng.exponential(0.2)
        journal.add(at + settle_s, "mdcatch", settled(movie, at))
        imported = MovieImported(movie=movie, settled=settled(movie, at))
        journal.add(at + settle_s, "prep", imported)
        if index % 16 == 11:
            journal.add(at + 4, "prep", _bad_movie(movie))
            continue
        if index == count - 1:
            continue  # has just come: pending in prep
        at += settle_s + 2.1 + rng.exponential(0.3)
        journal.add(at, "prep", corrected(movie, rng.gamma(9.0, 0.9), size_px))
        defocus_A = 12_000 + 4_000 * ((index % 8) / 8) + rng.normal(0, 300)
        resolution_A = 3.4 + rng.gamma(2.0, 0.35)
        at += 1.2 + rng.exponential(0.1)
        ctf = fitted(movie, defocus_A, resolution_A, size_px)
        journal.add(at, "prep", ctf)
        journal.add(at, "proc", MicrographImported(movie=movie, ctf=ctf))
        found = int(rng.normal(42, 6))
        journal.add(at + 0.6, "proc", picked(movie, found))
        journal.add(at + 1.1, "proc", extracted(movie, found))
    waiting = movie_name(count)
    at = 5.0 + 15.0 * count
    journal.add(at, "mdcatch", MovieSeen(movie=waiting, path=f"{waiting}_fractions.tiff"))
    journal.add(
        at + 60,
        "mdcatch",
        WaitStarted(subject=waiting, code="NO_METADATA", detail="No XML beside the movie yet."),
    )
    return journal


TRUNCATED_DETAIL = "Directory 14 of 20 points behind the end of the file (1,048,576 bytes)."


def _optics() -> OpticsGrouped:
    return OpticsGrouped(
        optics_group=1,
        name="opticsGroup1",
        voltage_kV=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
        pixel_size_A=PIXEL_A,
    )


def _bad_movie(movie: str) -> MicrographRefused:
    detail = "Frame 3 holds values that are not finite; acquire the movie again."
    return MicrographRefused(movie=movie, stage="motioncorr", code="NOT_FINITE", detail=detail)


def write_project(project: Path, journal: Journal, seed: int = 2) -> None:
    """Write the files that the session's events name."""
    rng = np.random.default_rng(seed)
    places: dict[str, np.ndarray] = {}
    for event in journal.events:
        body = event.body
        if isinstance(body, MicrographCorrected):
            places[body.movie] = _places(rng, 42, body.width_px)
            image = _micrograph(rng, body.width_px, places[body.movie])
            _write_mrc(project / body.micrograph, image)
            _write_track(project / body.metadata_star, rng, body.motion_total_px)
        elif isinstance(body, MicrographCtf):
            path = project / body.ctf_image.removesuffix(":mrc")
            _write_mrc(path, _rings(rng, 128, body.defocus_u_A))
            _write_profile(path.with_name(path.name[:-4] + "_avrot.txt"), rng, body.defocus_u_A)
        elif isinstance(body, ParticlesPicked):
            x, y = places[body.movie].T
            columns = {"rlnCoordinateX": x, "rlnCoordinateY": y}
            _save(project / body.coordinates, {"": Table.of(columns)})
        elif isinstance(body, ParticlesExtracted):
            _write_mrc(project / str(body.stack), _particles(rng, 12))


def _places(rng: np.random.Generator, count: int, size_px: int) -> np.ndarray:
    """Return centres [n, 2] that keep apart."""
    kept: list[np.ndarray] = []
    for place in rng.uniform(0.05 * size_px, 0.95 * size_px, (40 * count, 2)):
        if all(np.hypot(*(place - other)) > 0.11 * size_px for other in kept):
            kept.append(place)
    return np.asarray(kept[:count])


def _micrograph(rng: np.random.Generator, size_px: int, places: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:size_px, :size_px]
    image = rng.normal(0, 1.0, (size_px, size_px)) + 0.8 * x / size_px
    radius = 0.035 * size_px
    for centre_x, centre_y in places:
        distance = np.hypot(x - centre_x, y - centre_y) / radius
        image -= 1.1 * np.exp(-(distance**4)) + 0.5 * np.exp(-((distance - 0.7) ** 2) * 8)
    return image.astype(np.float32)


def _particles(rng: np.random.Generator, count: int) -> np.ndarray:
    y, x = np.mgrid[:BOX_PX, :BOX_PX] - BOX_PX / 2
    stack = rng.normal(0, 1.0, (count, BOX_PX, BOX_PX))
    for image in stack:
        angle, ratio = rng.uniform(0, np.pi), rng.uniform(0.6, 1.0)
        u = x * np.cos(angle) + y * np.sin(angle)
        v = (-x * np.sin(angle) + y * np.cos(angle)) / ratio
        image += 1.6 * np.exp(-((np.hypot(u, v) / 13) ** 4))
        image -= 0.8 * np.exp(-((np.hypot(u - 5, v) / 4) ** 2))
    return stack.astype(np.float32)


def _phase(s: np.ndarray, defocus_A: float) -> np.ndarray:
    wavelength_A, cs_A = 0.019687, 2.7e7
    return np.pi * wavelength_A * defocus_A * s**2 - np.pi / 2 * cs_A * wavelength_A**3 * s**4 + 0.1


def _rings(rng: np.random.Generator, size_px: int, defocus_A: float) -> np.ndarray:
    y, x = (np.mgrid[:size_px, :size_px] - size_px / 2) / size_px / 1.4
    s = np.hypot(x, y)
    rings = np.abs(np.sin(_phase(s, defocus_A)))
    noisy = rings * np.exp(-30 * s**2) + rng.normal(0, 0.25, s.shape)
    return np.where(y > 0, np.clip(noisy, 0, 1), np.where(x < 0, rings, rings * 0.8)).astype("f4")


def _write_profile(path: Path, rng: np.random.Generator, defocus_A: float) -> None:
    s = np.arange(91) / (128 * 1.4)  # px by px to the corner, as the rings are drawn
    model = np.abs(np.sin(_phase(s, defocus_A)))
    epa = 0.5 + (model - 0.5) * np.exp(-18 * s**2) + rng.normal(0, 0.03, s.size)
    agreement = np.clip(1.05 - (s / 0.29) ** 6, -0.1, 0.98) + rng.normal(0, 0.02, s.size)
    rows = np.stack([s, epa, epa, model, agreement, np.full_like(s, 0.3)])
    header = "\n".join(f"line {number}" for number in range(1, 6))
    np.savetxt(path, rows, fmt="%.6f", header=header)


def _write_track(path: Path, rng: np.random.Generator, total_px: float) -> None:
    n_frames = 20
    t = np.arange(n_frames)
    heading = rng.uniform(0, 2 * np.pi)
    length = (1 - np.exp(-t / 4)) + 0.02 * t
    x = np.cos(heading) * length + np.cumsum(rng.normal(0, 0.03, n_frames))
    y = np.sin(heading) * length + np.cumsum(rng.normal(0, 0.03, n_frames))
    scale = total_px / np.hypot(np.diff(x), np.diff(y)).sum()
    shifts = {
        "rlnMicrographFrameNumber": np.append(t + 1, n_frames + 1),
        "rlnMicrographShiftX": np.append((x - x[0]) * scale, -9999.0),
        "rlnMicrographShiftY": np.append((y - y[0]) * scale, -9999.0),
    }
    names = ("ImageSizeX", "ImageSizeY", "ImageSizeZ", "MotionModelVersion")
    general = {
        **{f"rln{name}": [str(v)] for name, v in zip(names, (1024, 1024, 21, 1), strict=True)},
        "rlnMicrographMovieName": ["Movies/m.tiff"],
        "rlnMicrographOriginalPixelSize": [f"{PIXEL_A:.6f}"],
        "rlnColdstreamVersion": ["1"],
    }
    centres = [(x, y) for y in (170.0, 512.0, 854.0) for x in (170.0, 512.0, 854.0)]
    patches = [(f, x, y, 0.4 * f * (x - 512) / 1024, 0.0) for f in (1, 7, 14) for x, y in centres]
    labels = ("MicrographFrameNumber", "CoordinateX", "CoordinateY")
    labels += ("MicrographShiftX", "MicrographShiftY")
    model = np.zeros(36)
    model[3] = 0.4  # x times z: the image grows along x
    tables = {
        "general": Table.of(general, loop=False),
        "global_shift": Table.of(shifts),
        "local_motion_model": Table.of(
            {"rlnMotionModelCoeffsIdx": np.arange(36), "rlnMotionModelCoeff": model}
        ),
        "local_shift": Table.of(
            {f"rln{n}": v for n, v in zip(labels, np.transpose(patches), strict=True)}
        ),
    }
    _save(path, tables)


def _save(path: Path, tables: dict[str, Table]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    star.save(path, tables, durable=False)


def _write_mrc(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path) as file:
        file.set_data(data)
        if data.ndim == 3:
            file.set_image_stack()
