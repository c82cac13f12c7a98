"""The maps of a session: what they look like, how good they are, what they are made of.

Source: refinement.md sections 7 and 8.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from algorithms.formats import star
from services.kit.events import Event, JobStarted, MapRefined
from services.report import mapplots, mapslices
from services.report.figures import Figure, Section
from services.report.mapslices import Shown

NAMES = {"inimodel3d": "initial model", "refine3d": "refined", "postprocess": "sharpened"}


@dataclass(kw_only=True)
class Maps:
    """What the journals say: all results in order, and the last job of each node."""

    refined: list[MapRefined] = field(default_factory=list)
    started: dict[str, str] = field(default_factory=dict)

    def newest(self, node: str) -> MapRefined | None:
        """Return the last result of a node."""
        return next((one for one in reversed(self.refined) if one.node == node), None)


def maps_of(events: Sequence[Event]) -> Maps:
    """Return what refine has told of its jobs."""
    found = Maps()
    for event in events:
        if event.producer != "refine":
            continue
        if isinstance(event.body, MapRefined):
            found.refined.append(event.body)
        elif isinstance(event.body, JobStarted):
            found.started[event.body.node] = event.body.process
    return found


def section(project: Path, events: Sequence[Event]) -> Section | None:
    """Return the section of the maps, None before there is a job that makes one."""
    maps = maps_of(events)
    if not maps.started:
        return None
    return Section(name="maps", title="3D", figures=tuple(_figures(project, maps)))


def _figures(project: Path, maps: Maps) -> Iterator[Figure]:
    yield Figure(
        name="maps",
        title="The newest maps",
        note="Sections through the middle and a projection: the initial model with its classes, "
        "the refined and the sharpened map.",
        image=mapslices.picture(shown(project, maps)),
    )
    refined, sharpened = maps.newest("refine3d"), maps.newest("postprocess")
    tables = _tables(project, sharpened)
    drawn = mapplots.fsc(tables.get("fsc"))
    if drawn is None and refined is not None:
        drawn = mapplots.fsc(_read(project / refined.process / "run_model.star", "model_class_1"))
    yield Figure(
        name="fsc",
        title="Correlation of the half-maps",
        note="The curve with random phases has to fall early: if it does not, the mask, not the "
        "particle, correlates. The dotted line is 0.143.",
        image=drawn,
    )
    yield Figure(
        name="directions",
        title="Directions of view",
        note="Particles by rot and tilt, relative to a uniform distribution. Empty regions smear "
        "the map along them.",
        image=_directions(project, maps),
    )
    yield Figure(
        name="resolution",
        title="Resolution and particles",
        note="Each refinement of the session. On these axes a straight line is the usual case, "
        "and its slope the B-factor of the data.",
        image=mapplots.growth(maps.refined),
    )
    if (image := mapplots.guinier(tables.get("guinier"), tables.get("general"))) is not None:
        note = "Amplitudes of the map against resolution; the line gives the sharpening."
        yield Figure(name="guinier", title="Guinier plot", note=note, image=image)


def shown(project: Path, maps: Maps) -> list[Shown]:
    """Return the newest maps, with the classes of the initial model."""
    found = []
    for node, name in NAMES.items():
        one = maps.newest(node)
        if one is None:
            continue
        known = f", {one.resolution_A:.1f} Å" if one.resolution_A is not None else ""
        facts = f"{one.particles:,} particles\n{known.lstrip(', ')}".rstrip()
        found.append(Shown(path=project / one.map, name=name, facts=facts))
        if node == "inimodel3d":
            found += classes(project / one.process)
    return found


def classes(folder: Path) -> list[Shown]:
    """Return the class maps of the last iteration of a job, where there are several."""
    models = sorted(folder.glob("run_it*_model.star"))
    if not models:
        return []
    root = models[-1].name.removesuffix("_model.star")
    maps = sorted(folder.glob(f"{root}_class*.mrc"))
    if len(maps) < 2:
        return []
    table = _read(models[-1], "model_classes")
    shares = mapplots.column(table, "rlnClassDistribution") if table else None
    found = []
    for index, path in enumerate(maps):
        known = shares is not None and index < len(shares)
        facts = f"{100.0 * shares[index]:.0f} %" if known and shares is not None else ""
        found.append(Shown(path=path, name=f"class {index + 1}", facts=facts))
    return found


def _directions(project: Path, maps: Maps) -> bytes | None:
    """Return the directions of the newest job that has some."""
    for node in ("refine3d", "inimodel3d"):
        process = maps.started.get(node)
        if process is None:
            continue
        folder = project / process
        tables = [folder / "run_data.star", *sorted(folder.glob("run_it*_data.star"))[::-1]]
        for path in (path for path in tables if path.exists()):
            table = _read(path, "particles")
            rot = None if table is None else mapplots.column(table, "rlnAngleRot")
            tilt = None if table is None else mapplots.column(table, "rlnAngleTilt")
            if rot is not None and tilt is not None and len(rot):
                return mapplots.directions(rot, tilt)
    return None


def _tables(project: Path, sharpened: MapRefined | None) -> dict[str, star.Table]:
    """Return the blocks of `postprocess.star`; none where it is not there."""
    if sharpened is None:
        return {}
    try:
        return star.load(project / sharpened.process / "postprocess.star")
    except (OSError, star.StarError):
        return {}


def _read(path: Path, block: str) -> star.Table | None:
    try:
        return star.load(path, only=(block,)).get(block)
    except (OSError, star.StarError):
        return None
