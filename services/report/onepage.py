"""The page of one micrograph: its pictures, its numbers, its history, and what is missing.

The page works at any stage of a micrograph, refused or not, and with files that are gone: it says
what is missing and why. Source: preprocessing.md sections 2.13, 3.7, 6.3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from services.kit.events import MicrographCorrected, ParticlesPicked
from services.kit.ledger import STAGES
from services.report import ctfplots, html, numbers, pictures, readings, tracks
from services.report.facts import ReportFacts, Story, Told, stories
from services.report.files import ReportFiles, write
from services.report.gallery import radius_px
from services.report.summary import utc
from services.report.thumbnails import jpeg, png
from services.report.values import described, fit_of, rows_of

# A page tells near its beginning up to which event it was made: no clock is trusted for it.
PAGE_BEGINS = 1000
TITLES = {
    "picks": "Micrograph and picks",
    "spectrum": "Spectrum",
    "curve": "CTF curve",
    "drift": "Drift",
    "steps": "Drift from frame to frame",
}


@dataclass(kw_only=True)
class _Pictures:
    """By kind: PNG, what the page shows of it, and its note; and what could not be drawn."""

    made: dict[str, tuple[bytes, bytes, str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


class MicrographPages:
    """Makes the pages of a session's micrographs.

    Parameters
    ----------
    project
        RELION project folder.
    facts
        Events of the session.
    report
        The report the pages belong to; they are written into the folder of its name.
    """

    def __init__(self, project: Path, facts: ReportFacts, report: Path):
        self._project, self._facts, self._report = project, facts, report
        self.files = ReportFiles(report.with_suffix(""))
        told = stories(facts.events)
        rows = rows_of(told)
        known = {story.movie for story in rows.told}
        # Those that were never complete have no time of acquisition: they come last.
        ordered = [*rows.told, *(story for story in told if story.movie not in known)]
        self._stories = {story.movie: story for story in ordered}
        self.movies = list(self._stories)
        self._number = {movie: index for index, movie in enumerate(self.movies)}

    def is_current(self, movie: str) -> bool:
        """Say whether a page was made after the last that has happened to its micrograph."""
        try:
            with open(self.files.page(movie), "rb") as page:
                begins = page.read(PAGE_BEGINS)
        except OSError:
            return False
        return f'content="{self._last(movie)}"'.encode() in begins

    def _last(self, movie: str) -> str:
        """Return the time of the last event of a micrograph, exactly."""
        return repr(max((at for at, _ in self._stories[movie].latest.values()), default=0.0))

    def write(self, movie: str, history: Sequence[Told], verdict: str) -> Path:
        """Write the page of a micrograph and its pictures; return the page's path.

        Parameters
        ----------
        movie
            Its identity, one of `movies`.
        history
            All that has happened to it.
        verdict
            Where it stands, in one sentence.

        Raises
        ------
        Misuse
            It cannot be written.
        """
        story = self._stories[movie]
        drawn = _draw(self._project, story, self._facts)
        for kind in TITLES:
            path = self.files.picture(movie, kind)
            if kind in drawn.made:
                write(path, drawn.made[kind][0])
            else:
                path.unlink(missing_ok=True)
        index = self._number[movie]
        neighbours = [
            self.movies[i] if 0 <= i < len(self.movies) else None for i in (index - 1, index + 1)
        ]
        for other in neighbours:
            if other is not None:
                name = self._report.name
                text = html.placeholder(other, self._facts.project_name, name)
                self.files.reserve(other, text)
        page = html.render(
            "micrograph.html",
            name=story.name,
            movie=movie,
            session=self._facts.session,
            simulated=self._facts.is_simulated,
            last=self._last(movie),
            number=index + 1,
            total=len(self.movies),
            state=_state(story),
            verdict=verdict,
            written=utc(self._facts.written_at),
            links=[other and self.files.page(other).name for other in neighbours],
            report=f"../../{self._report.name}",
            pictures=[(TITLES[kind], *part[1:]) for kind, part in drawn.made.items()],
            missing=drawn.missing,
            groups=numbers.groups(self._project, story, self._facts.fit_limit_A),
            history=[(utc_s(line.at), line) for line in history],
        )
        path = self.files.page(movie)
        write(path, page)
        return path


def utc_s(at: float) -> str:
    """Return a moment to the second."""
    return f"{utc(at)[:-4]}:{int(at % 60):02d}"


def _state(story: Story) -> str:
    states = [state for room in STAGES if (state := story.state(room))]
    return states[-1] if states else "pending"


def _draw(project: Path, story: Story, facts: ReportFacts) -> _Pictures:
    drawn = _Pictures()
    for part in (_micrograph, _ctf, _motion):
        for kind, image, note in part(project, story, facts, drawn.missing):
            # A page shows grey noise as JPEG: a fifth of the PNG, and no eye sees it.
            whole = image if isinstance(image, bytes) else png(image)
            drawn.made[kind] = (whole, whole if isinstance(image, bytes) else jpeg(image), note)
    return drawn


Drawn = Iterator[tuple[str, Image.Image | bytes, str]]


def _micrograph(project: Path, story: Story, facts: ReportFacts, missing: list[str]) -> Drawn:
    moved = story.get(MicrographCorrected)
    if moved is None:
        missing.append("No micrograph: the movie has not been aligned.")
        return
    image = readings.read_image(project / moved.micrograph)
    if image is None:
        missing.append(_gone("micrograph", project / moved.micrograph))
        return
    places, note = np.zeros((0, 2)), "not picked"
    picked = story.get(ParticlesPicked)
    radius = radius_px(story, moved, facts.particle_diameter_A)
    if picked is not None:
        found = readings.read_coordinates(project / picked.coordinates)
        if found is None:
            missing.append(_gone("picks", project / picked.coordinates))
        else:
            places = np.column_stack([found.x_px, found.y_px])
            diameter_A = 2 * radius * moved.pixel_size_A
            note = f"{len(places)} picks, circles of {diameter_A:.0f} Å"
    picture = pictures.with_picks(image, moved.pixel_size_A, places, radius)
    yield "picks", picture, f"Low-passed to 20 Å, origin at the lower left; {note}."


def _ctf(project: Path, story: Story, facts: ReportFacts, missing: list[str]) -> Drawn:
    fit = fit_of(story)
    if fit is None:
        missing.append("No CTF: it has not been fitted.")
        return
    path = project / readings.without_suffix(fit.ctf_image)
    profile, image = readings.read_profile(path), readings.read_image(path)
    if image is None:
        missing.append(_gone("spectrum", path))
    else:
        step = 1.0 / (image.shape[0] * fit.pixel_size_A)
        if profile is not None and len(profile.s) > 1 and profile.s[1] > profile.s[0]:
            step = float(profile.s[1] - profile.s[0])
        note = "Above: spectrum; below: model at the left, equiphase average at the right. Orange: "
        note += f"the fit reaches {fit.max_resolution_A:.1f} Å"
        if facts.fit_limit_A is not None:
            note += f"; blue: the limit, {facts.fit_limit_A:g} Å"
        picture = ctfplots.spectrum(image, step, fit.max_resolution_A, facts.fit_limit_A)
        yield "spectrum", picture, f"{note}."
    if profile is None:
        missing.append(_gone("CTF curve", path.with_name(f"{path.stem}_avrot.txt")))
    elif (curve := ctfplots.curve(profile, fit.max_resolution_A)) is not None:
        note = "Equiphase average of the spectrum, the model, and how well they agree."
        yield "curve", curve, note


def _motion(project: Path, story: Story, facts: ReportFacts, missing: list[str]) -> Drawn:
    moved = story.get(MicrographCorrected)
    if moved is None:
        return  # `_micrograph` has said so
    motion = readings.read_movie_motion(project / moved.metadata_star)
    if motion is None:
        missing.append(_gone("motion", project / moved.metadata_star))
        return
    note = "Left: the shifts applied to whole frames; the red dot is the first. Right: where they "
    note += "are in the image, drawn longer as the legend says"
    local = "; patches: what moved beyond the whole frame" if motion.patches_A else ""
    note += f"{local or '; no local motion was found'}."
    yield "drift", tracks.drift(motion), note
    settled = described(story)
    dose = settled.dose_per_frame_e_A2 if settled is not None else None
    if (steps := tracks.steps(motion, dose)) is not None:
        yield "steps", steps, "Length of the step from each frame to the next."


def _gone(what: str, path: Path) -> str:
    why = "cannot be read" if path.exists() else "is not there"
    return f"No {what}: {path} {why}."
