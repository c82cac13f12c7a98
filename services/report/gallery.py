"""The report's pictures: micrographs with their picks, CTF images, and some particles."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.kit.events import (
    ClassesAveraged,
    ClassesIterated,
    ClassesRanked,
    Event,
    MicrographCorrected,
    MicrographCtf,
    ParticlesExtracted,
    ParticlesPicked,
    RankingRefused,
)
from services.kit.ledger import STAGES
from services.report import ranking, readings, thumbnails
from services.report.facts import Story
from services.report.files import ReportFiles
from services.report.values import Rows, fit_of, movie_pixel_A

LATEST, SPREAD = 8, 16
PARTICLES_SHOWN = 48
CTF_WIDTH_PX = 224
CIRCLE_OF_BOX = 2 / 3  # RELION's rules make the box about 1.5 particle diameters


@dataclass(frozen=True, kw_only=True)
class Card:
    """One micrograph as the page shows it; circles are in px of the micrograph, y downwards."""

    name: str
    link: str
    state: str
    width_px: int
    height_px: int
    thumbnail: str | None
    ctf_image: str | None
    circles: tuple[tuple[int, int], ...]
    radius_px: float
    lines: tuple[str, ...]


def choose(rows: Rows) -> tuple[list[Story], list[Story]]:
    """Return the latest micrographs, the last first, and some spread over the session.

    The spread ones stay chosen while the session grows, until their number halves: pictures made
    once are used again.
    """
    corrected = [story for story in rows.told if story.get(MicrographCorrected)]
    step = 1
    while len(corrected) > SPREAD * step:
        step *= 2
    latest = corrected[: -LATEST - 1 : -1]
    shown = {story.movie for story in latest}
    return latest, [story for story in corrected[::step] if story.movie not in shown]


def cards(
    project: Path, told: Sequence[Story], files: ReportFiles, particle_diameter_A: float | None
) -> list[Card]:
    """Return the cards of micrographs."""
    return [_card(project, story, files, particle_diameter_A) for story in told]


def particle_sheet(project: Path, told: Sequence[Story]) -> str | None:
    """Return a data URI of particles from micrographs all over the session, or None."""
    sources = []
    for story in told:
        extracted = story.get(ParticlesExtracted)
        if extracted is not None and extracted.stack and extracted.n_particles:
            sources.append((story, extracted.stack))
    if not sources:
        return None
    chosen = np.linspace(0, len(sources) - 1, min(len(sources), PARTICLES_SHOWN // 4)).astype(int)
    each = -(-PARTICLES_SHOWN // len(chosen))
    images: list[np.ndarray] = []
    for index in chosen:
        stack = project / readings.without_suffix(sources[index][1])
        images += readings.read_stack(stack, each)
    if not images:
        return None
    sheet = thumbnails.montage(images[:PARTICLES_SHOWN], columns=12, tile_px=88)
    return thumbnails.uri(thumbnails.jpeg(sheet))


def class_sheets(project: Path, events: Sequence[Event]) -> dict[str, object]:
    """Return what the page says of classes: as they are now, and as they were ranked last."""
    return {
        "classes": class_sheet(project, events),
        "selection": selection_sheet(project, events),
    }


def class_sheet(project: Path, events: Sequence[Event]) -> tuple[str, str] | None:
    """Return a caption and a data URI of the class averages as they are now, or None."""
    bodies = [event.body for event in events]
    told = next((body for body in reversed(bodies) if isinstance(body, ClassesIterated)), None)
    done = next((body for body in reversed(bodies) if isinstance(body, ClassesAveraged)), None)
    if told is None:
        return None
    caption = (
        f"{told.process}: iteration {told.iteration} of {told.iterations}, "
        f"{told.total:,} particles, {told.resolution_A:.1f} Å."
    )
    montages = [f"{told.process}run_classes.png"]  # redrawn at every iteration
    if done is not None:
        montages.append(done.montage)  # while the next one has not drawn any yet
    for montage in montages:
        with suppress(OSError):
            return caption, thumbnails.uri((project / montage).read_bytes())
    return None


def selection_sheet(project: Path, events: Sequence[Event]) -> tuple[list[str], str | None] | None:
    """Return lines on the last selection of classes and a data URI of its picture, or None."""
    told = next(
        (e.body for e in reversed(events) if isinstance(e.body, ClassesRanked | RankingRefused)),
        None,
    )
    if told is None:
        return None
    if isinstance(told, RankingRefused):
        return [f"{told.process}: iteration {told.iteration} has no scores. {told.detail}"], None
    uri = None
    with suppress(OSError):
        uri = thumbnails.uri((project / told.sheet).read_bytes())
    return ranking.selection_lines(told), uri


def _card(
    project: Path, story: Story, files: ReportFiles, particle_diameter_A: float | None
) -> Card:
    corrected = story.get(MicrographCorrected)
    assert corrected is not None  # noqa: S101 - `choose` chose the story for it
    picture = micrograph_thumbnail(project, story.movie, corrected, files)
    return Card(
        name=story.name,
        link=files.link(story.movie),
        state=_state(story),
        width_px=corrected.width_px,
        height_px=corrected.height_px,
        thumbnail=thumbnails.uri(picture) if picture else None,
        ctf_image=_ctf_uri(project, story, files),
        circles=_circles(project, story, corrected.height_px),
        radius_px=radius_px(story, corrected, particle_diameter_A),
        lines=_lines(story),
    )


def micrograph_thumbnail(
    project: Path, movie: str, corrected: MicrographCorrected, files: ReportFiles
) -> bytes | None:
    """Return a micrograph of 512 px as JPEG, kept for the next time; None if it is not there."""
    path = project / corrected.micrograph

    def make() -> bytes | None:
        image = readings.read_image(path)
        if image is None:
            return None
        return thumbnails.jpeg(thumbnails.thumbnail(image, corrected.pixel_size_A))

    return files.thumbnail(movie, "image", path, make)


def _ctf_uri(project: Path, story: Story, files: ReportFiles) -> str | None:
    ctf = fit_of(story)
    if ctf is None:
        return None
    path = project / readings.without_suffix(ctf.ctf_image)

    def make() -> bytes | None:
        spectrum = readings.read_image(path)
        if spectrum is None:
            return None
        grey = thumbnails.to_grey(spectrum, 0.5, 99.5)
        return thumbnails.jpeg(grey.resize((CTF_WIDTH_PX, CTF_WIDTH_PX)))

    made = files.thumbnail(story.movie, "ctf", path, make)
    return thumbnails.uri(made) if made else None


def _state(story: Story) -> str:
    states = [state for room in STAGES if (state := story.state(room))]
    return states[-1] if states else "pending"


def _circles(project: Path, story: Story, height_px: int) -> tuple[tuple[int, int], ...]:
    picked = story.get(ParticlesPicked)
    if picked is None:
        return ()
    found = readings.read_coordinates(project / picked.coordinates)
    if found is None:
        return ()
    # The picture has its origin at the lower left, SVG at the upper left.
    flipped = height_px - 1 - found.y_px
    return tuple((round(x), round(y)) for x, y in zip(found.x_px, flipped, strict=True))


def radius_px(
    story: Story, corrected: MicrographCorrected, particle_diameter_A: float | None
) -> float:
    """Return the radius of a particle in px of the micrograph, by its box where it is not told."""
    extracted = story.get(ParticlesExtracted)
    diameter_A = particle_diameter_A
    if diameter_A is None and extracted is not None:
        diameter_A = CIRCLE_OF_BOX * extracted.box_px * extracted.pixel_size_A
    if diameter_A is None:
        return max(corrected.width_px, corrected.height_px) / 64
    return diameter_A / corrected.pixel_size_A / 2


def _lines(story: Story) -> tuple[str, ...]:
    """Return the caption: what each stage found, one line each."""
    lines = []
    corrected, ctf = story.get(MicrographCorrected), story.get(MicrographCtf)
    picked, extracted = story.get(ParticlesPicked), story.get(ParticlesExtracted)
    if corrected is not None:
        lines.append(f"drift {corrected.motion_total_px * movie_pixel_A(story):.1f} Å")
    if ctf is not None:
        defocus_um = (ctf.defocus_u_A + ctf.defocus_v_A) / 2e4
        lines.append(f"defocus {defocus_um:.2f} µm")
        lines.append(f"CTF fits to {ctf.max_resolution_A:.1f} Å")
    if extracted is not None:
        lines.append(f"{extracted.n_particles} particles")
    elif picked is not None:
        lines.append(f"{picked.n_particles} picks")
    refusal = [
        body for body in story.outcome.values() if body is not None and hasattr(body, "code")
    ]
    if refusal:
        lines.append(f"refused: {getattr(refusal[-1], 'code', '')}")
    return tuple(lines)
