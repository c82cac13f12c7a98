"""The report's pictures: micrographs with their picks, CTF images, and some particles."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.kit.events import (
    MicrographCorrected,
    MicrographCtf,
    MovieSettled,
    ParticlesExtracted,
    ParticlesPicked,
)
from services.kit.ledger import STAGES
from services.report import readings, thumbnails
from services.report.facts import Story

SHOWN = 24
PARTICLES_SHOWN = 48
CTF_WIDTH_PX = 224
CIRCLE_OF_BOX = 2 / 3  # RELION's rules make the box about 1.5 particle diameters


@dataclass(frozen=True, kw_only=True)
class Card:
    """One micrograph as the page shows it; circles are in px of the micrograph, y downwards."""

    name: str
    state: str
    width_px: int
    height_px: int
    thumbnail: str | None
    ctf_image: str | None
    circles: tuple[tuple[int, int], ...]
    radius_px: float
    lines: tuple[str, ...]


def cards(
    project: Path, told: Sequence[Story], particle_diameter_A: float | None = None
) -> list[Card]:
    """Return cards of up to 24 micrographs spread over the session."""
    corrected = [story for story in told if story.get(MicrographCorrected)]
    return [_card(project, story, particle_diameter_A) for story in spread(corrected, SHOWN)]


def spread(items: Sequence[Story], count: int) -> list[Story]:
    """Return up to `count` items at even distances, first and last included."""
    wanted = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))
    return [items[index] for index in wanted]


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
    return thumbnails.jpeg_uri(thumbnails.montage(images[:PARTICLES_SHOWN], columns=12, tile_px=88))


def _card(project: Path, story: Story, particle_diameter_A: float | None) -> Card:
    corrected = story.get(MicrographCorrected)
    assert corrected is not None  # noqa: S101 - `cards` chose the story for it
    image = readings.read_image(project / corrected.micrograph)
    height_px, width_px = (
        image.shape if image is not None else (corrected.height_px, corrected.width_px)
    )
    picture = None
    if image is not None:
        small = thumbnails.thumbnail(image, corrected.pixel_size_A)
        picture = thumbnails.jpeg_uri(small)
    ctf = story.get(MicrographCtf)
    spectrum = None
    if ctf is not None:
        spectrum = readings.read_image(project / readings.without_suffix(ctf.ctf_image))
    return Card(
        name=story.name,
        state=_state(story),
        width_px=width_px,
        height_px=height_px,
        thumbnail=picture,
        ctf_image=_spectrum_uri(spectrum),
        circles=_circles(project, story, height_px),
        radius_px=_radius_px(story, corrected, particle_diameter_A),
        lines=_lines(story),
    )


def _state(story: Story) -> str:
    states = [state for room in STAGES if (state := story.state(room))]
    return states[-1] if states else "pending"


def _spectrum_uri(spectrum: np.ndarray | None) -> str | None:
    if spectrum is None:
        return None
    grey = thumbnails.to_grey(spectrum, 0.5, 99.5)
    return thumbnails.jpeg_uri(grey.resize((CTF_WIDTH_PX, CTF_WIDTH_PX)))


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


def _radius_px(
    story: Story, corrected: MicrographCorrected, particle_diameter_A: float | None
) -> float:
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


def movie_pixel_A(story: Story) -> float:
    """Return the pixel of the movie, in which motion is counted."""
    settled, corrected = story.get(MovieSettled), story.get(MicrographCorrected)
    if settled is not None:
        return settled.pixel_size_A
    return corrected.pixel_size_A if corrected is not None else 1.0
