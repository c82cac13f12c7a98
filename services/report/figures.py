"""Which numbers go into which figure of the report."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.kit.events import (
    Body,
    MicrographCorrected,
    MicrographCtf,
    MovieSettled,
    ParticlesExtracted,
    ParticlesPicked,
)
from services.report import plots, readings
from services.report.facts import Story
from services.report.gallery import movie_pixel_A
from services.report.plots import Clock, Series

TRACKS_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of the page; `image` is None while there is nothing to show."""

    title: str
    note: str
    image: str | None
    wide: bool = False


def draw(project: Path, told: Sequence[Story]) -> list[Figure]:
    """Return the figures of the page, in order."""
    clock = _clock(told)
    counts = _over_time(told, ParticlesExtracted, lambda body: body.n_particles)
    return [
        Figure(
            title="Progress",
            note="Movies that have left each stage.",
            image=plots.throughput(_stage_times(told), clock),
        ),
        Figure(
            title="Time per stage",
            note="Computing time of each step, and the whole way from the last byte of a movie.",
            image=plots.latency(latencies(told)),
        ),
        *_motion_figures(project, told, clock),
        *_ctf_figures(project, told, clock),
        Figure(
            title="Particles per micrograph",
            note="A step or a drift here is often the first sign of trouble.",
            image=plots.particles(counts, clock),
        ),
    ]


def _motion_figures(project: Path, told: Sequence[Story], clock: Clock) -> Iterator[Figure]:
    yield Figure(
        title="Drift tracks",
        note="Shifts applied to the frames of six movies, from the least to the most motion; "
        "the dot is the first frame.",
        image=plots.drift_tracks(_tracks(project, told)),
        wide=True,
    )
    yield Figure(
        title="Motion of every movie",
        note="Length of the path; the early part decides how much high resolution is left.",
        image=plots.drift_over_time(_motion(told, 0), _motion(told, 1), clock),
    )


def _ctf_figures(project: Path, told: Sequence[Story], clock: Clock) -> Iterator[Figure]:
    yield Figure(
        title="Defocus",
        note="Both axes of the fit; the bar between them is the astigmatism.",
        image=plots.defocus(
            _over_time(told, MicrographCtf, lambda body: body.defocus_u_A),
            _over_time(told, MicrographCtf, lambda body: body.defocus_v_A),
            clock,
        ),
    )
    fits = [body.max_resolution_A for story in told if (body := story.get(MicrographCtf))]
    yield Figure(
        title="CTF fit resolution",
        note="How far the rings follow the model.",
        image=plots.fit_resolution(np.asarray(fits, dtype=float)),
    )
    example, image = _profile(project, told)
    note = f"Example: {example}." if example else "Equiphase average against the model."
    yield Figure(title="CTF profile", note=note, image=image)


def _clock(told: Sequence[Story]) -> Clock:
    moments = [at for story in told for at, _ in story.latest.values()]
    return Clock(min(moments, default=0.0), max(moments, default=0.0))


def _over_time(
    told: Sequence[Story], kind: type[Body], value: Callable[..., float | int]
) -> Series:
    rows = [
        (story.at(kind) or 0.0, float(value(body)))
        for story in told
        if (body := story.get(kind)) is not None
    ]
    return _series(rows)


def _series(rows: list[tuple[float, float]]) -> Series:
    table = np.asarray(sorted(row for row in rows if np.isfinite(row[1]))).reshape(-1, 2)
    return Series(at=table[:, 0], values=table[:, 1])


def motion_A(story: Story) -> tuple[float, float]:
    """Return total and early motion of a movie in A; not-a-number where it is not aligned."""
    body = story.get(MicrographCorrected)
    if body is None:
        return float("nan"), float("nan")
    pixel_A = movie_pixel_A(story)
    return body.motion_total_px * pixel_A, body.motion_early_px * pixel_A


def _motion(told: Sequence[Story], which: int) -> Series:
    rows = [(story.at(MicrographCorrected), motion_A(story)[which]) for story in told]
    return _series([(at, value) for at, value in rows if at is not None])


def _stage_times(told: Sequence[Story]) -> list[tuple[str, np.ndarray]]:
    labels = {
        "complete": MovieSettled,
        "aligned": MicrographCorrected,
        "CTF": MicrographCtf,
        "particles": ParticlesExtracted,
    }
    return [
        (label, np.asarray([at for story in told if (at := story.at(kind)) is not None]))
        for label, kind in labels.items()
    ]


def _tracks(project: Path, told: Sequence[Story]) -> list[tuple[str, readings.Track]]:
    """Return six tracks from the least to the most motion; unreadable ones are left out."""
    corrected = [story for story in told if np.isfinite(motion_A(story)[0])]
    ordered = sorted(corrected, key=lambda story: motion_A(story)[0])
    wanted = np.unique(np.linspace(0, len(ordered) - 1, min(TRACKS_SHOWN, len(ordered))))
    found = []
    for index in wanted.astype(int):
        story = ordered[index]
        body = story.get(MicrographCorrected)
        if body is None:
            continue
        track = readings.read_track(project / body.metadata_star, movie_pixel_A(story))
        if track is not None:
            found.append((f"{motion_A(story)[0]:.1f} Å", track))
    return found


def _profile(project: Path, told: Sequence[Story]) -> tuple[str, str | None]:
    """Return name and figure of the readable profile that is nearest to the median fit."""
    fits = [(body, story) for story in told if (body := story.get(MicrographCtf))]
    if not fits:
        return "", None
    median = float(np.median([body.max_resolution_A for body, _ in fits]))
    fits.sort(key=lambda item: abs(item[0].max_resolution_A - median))
    for body, story in fits[:10]:
        profile = readings.read_profile(project / readings.without_suffix(body.ctf_image))
        if profile is not None:
            return story.name, plots.ctf_profile(profile, body.max_resolution_A)
    return "", None


def latencies(told: Sequence[Story]) -> list[tuple[str, np.ndarray]]:
    """Return label and seconds of each step, and of the way from the last byte of the movie."""
    rows: dict[str, list[float]] = {label: [] for label in LATENCIES}
    for story in told:
        available = story.available_at()
        settled_at, ctf_at = story.at(MovieSettled), story.at(MicrographCtf)
        extracted_at = story.at(ParticlesExtracted)
        if available is not None:
            for label, at in zip(WAYS, (settled_at, ctf_at, extracted_at), strict=True):
                if at is not None:
                    rows[label].append(at - available)
        for label, kind in STEPS.items():
            took_s = getattr(story.get(kind), "took_s", None)
            if took_s is not None:
                rows[label].append(took_s)
    return [(label, np.asarray(rows[label])) for label in LATENCIES]


STEPS: dict[str, type[Body]] = {
    "motion correction": MicrographCorrected,
    "CTF": MicrographCtf,
    "picking": ParticlesPicked,
    "extraction": ParticlesExtracted,
}
WAYS = ("last byte to complete", "last byte to CTF", "last byte to particles")
LATENCIES = (WAYS[0], *STEPS, *WAYS[1:])


def latency_table(told: Sequence[Story]) -> list[tuple[str, int, float, float, float]]:
    """Return label, count, median, 95th percentile and maximum in seconds, for the table."""
    return [
        (
            label,
            len(seconds),
            float(np.median(seconds)),
            float(np.percentile(seconds, 95)),
            float(seconds.max()),
        )
        for label, seconds in latencies(told)
        if len(seconds)
    ]
