"""What all events have in common: types with units in their names and bounds, and their base."""

from typing import Annotated

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(min_length=1, max_length=1024)]
Text = Annotated[str, Meta(max_length=4096)]
Count = Annotated[int, Meta(ge=0, le=2**40)]
PixelSizeA = Annotated[float, Meta(gt=0.05, le=100.0)]
VoltageKV = Annotated[float, Meta(ge=10.0, le=1500.0)]
SphericalAberrationMM = Annotated[float, Meta(ge=0.0, le=20.0)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
DoseEA2 = Annotated[float, Meta(gt=0.0, le=10_000.0)]
LengthA = Annotated[float, Meta(ge=-1e7, le=1e7)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e9)]
Pixels = Annotated[int, Meta(ge=1, le=131_072)]
Frames = Annotated[int, Meta(ge=1, le=65_535)]
AngleDeg = Annotated[float, Meta(ge=-360.0, le=360.0)]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of all event bodies."""
