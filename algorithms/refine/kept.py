"""The state beside the files: a run that was killed goes on exactly where it was."""

import io
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from algorithms.formats.atomic import atomic_write
from algorithms.refine.joining import Known
from algorithms.refine.sampling import Sampling
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.types import Model, Moments


class Kept(NamedTuple):
    """What stands in a state file; `begun_with` is what a run must not change."""

    model: Model
    particles: Known
    begun_with: str


def told(value: object) -> str:
    """Return what a run is told, but for what is as by default: later options change nothing.

    Parameters
    ----------
    value
        A dataclass, which may hold others; or a plain value, of which this is the `repr`.
    """
    if not is_dataclass(value):
        return repr(value)
    given = {field.name: getattr(value, field.name) for field in fields(value)}
    default = {field.name: field.default for field in fields(value)}
    words = [
        f"{name}={told(one)}"
        for name, one in sorted(given.items())
        if default[name] is MISSING or one != default[name]
    ]
    return f"{type(value).__name__}({', '.join(words)})"


def save(path: Path, kept: Kept) -> None:
    """Write a state file in one step."""
    model, particles = kept.model, kept.particles
    values = {name: value for name, value in vars(model).items() if name != "moments"}
    columns = {name: torch.as_tensor(column) for name, column in particles.columns.items()}
    buffer = io.BytesIO()
    torch.save(
        {
            "model": values | {"sampling": dict(vars(model.sampling))},
            "moments": None if model.moments is None else vars(model.moments),
            "particles": columns,
            "keys": torch.tensor(particles.keys),
            "optics": particles.optics,
            "begun_with": kept.begun_with,
        },
        buffer,
    )
    atomic_write(path, buffer.getvalue())


def load(path: Path) -> Kept | None:
    """Return what a state file holds, None when there is none."""
    if not path.exists():
        return None
    found = torch.load(path, weights_only=True)
    fields: dict[str, Any] = dict(found["model"])
    kind = Sampling3D if "healpix_order" in fields["sampling"] else Sampling
    fields["sampling"] = kind(**fields["sampling"])
    moments = None if found["moments"] is None else Moments(**found["moments"])
    columns = {name: values.numpy() for name, values in found["particles"].items()}
    return Kept(
        Model(**fields, moments=moments),
        Known(found["keys"].numpy(), columns, found["optics"]),
        found["begun_with"],
    )
