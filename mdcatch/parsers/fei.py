"""One record of the FEI1 or FEI2 extended header of an MRC file.

Records are packed, without gaps. Four bit masks say which fields are set: those between a mask and
the next belong to it, one bit each, lowest first. A field whose bit is 0 is not set, not zero.

Source: acquisition.md section 5.
"""

import re
import struct
from datetime import datetime, timedelta
from typing import NamedTuple

Value = float | int | bool | str

FEI1_BYTES = 768
FEI2_BYTES = 888
TYPES = {"FEI1": FEI1_BYTES, "FEI2": FEI2_BYTES}

_UNUSED_BITS = 6  # "Unused range" is six doubles in one, with a bit for each
_OLE_START = datetime(1899, 12, 30)  # Microsoft's date 0; by the microscope's clock
_OLE_DAYS = (32_874.0, 73_415.0)  # the years 1990 to 2100
_LETTERS = {"i4": "i", "u4": "I", "u8": "Q", "f8": "d", "?": "?"}

_FEI1 = """
    Metadata size i4, Metadata version i4, Bitmask 1 u4, Timestamp f8, Microscope type S16,
    D-Number S16, Application S16, Application version S16, HT f8, Dose f8, Alpha tilt f8,
    Beta tilt f8, X-Stage f8, Y-Stage f8, Z-Stage f8, Tilt axis angle f8, Dual axis rotation f8,
    Pixel size X f8, Pixel size Y f8, Unused range S48, Defocus f8, STEM Defocus f8,
    Applied defocus f8, Instrument mode i4, Projection mode i4, Objective lens mode S16,
    High magnification mode S16, Probe mode i4, EFTEM On ?, Magnification f8, Bitmask 2 u4,
    Camera length f8, Spot index i4, Illuminated area f8, Intensity f8, Convergence angle f8,
    Illumination mode S16, Wide convergence angle range ?, Slit inserted ?, Slit width f8,
    Acceleration voltage offset f8, Drift tube voltage f8, Energy shift f8, Shift offset X f8,
    Shift offset Y f8, Shift X f8, Shift Y f8, Integration time f8, Binning Width i4,
    Binning Height i4, Camera name S16, Readout area left i4, Readout area top i4,
    Readout area right i4, Readout area bottom i4, Ceta noise reduction ?, Ceta frames summed i4,
    Direct detector electron counting ?, Direct detector align frames ?, Reserved 0 i4,
    Reserved 1 i4, Reserved 2 i4, Reserved 3 i4, Bitmask 3 u4, Reserved 4 i4, Reserved 5 i4,
    Reserved 6 i4, Reserved 7 i4, Reserved 8 i4, Reserved 9 i4, Phase Plate ?,
    STEM Detector name S16, Gain f8, Offset f8, Reserved 10 i4, Reserved 11 i4, Reserved 12 i4,
    Reserved 13 i4, Reserved 14 i4, Dwell time f8, Frame time f8, Scan size left i4,
    Scan size top i4, Scan size right i4, Scan size bottom i4, Full scan FOV X f8,
    Full scan FOV Y f8, Element S16, Energy interval lower f8, Energy interval higher f8,
    Method i4, Is dose fraction ?, Fraction number i4, Start frame i4, End frame i4,
    Input stack filename S80, Bitmask 4 u4, Alpha tilt min f8, Alpha tilt max f8
"""
_FEI2 = """,
    Scan rotation f8, Diffraction pattern rotation f8, Image rotation f8, Scan mode enumeration i4,
    Acquisition time stamp u8, Detector commercial name S16, Start tilt angle f8,
    End tilt angle f8, Tilt per image f8, Tilt speed f8, Beam center X pixel i4,
    Beam center Y pixel i4, CFEG flash timestamp u8, Phase plate position index i4,
    Objective aperture name S16
"""


class _Place(NamedTuple):
    name: str
    offset: int
    letters: str  # of struct; "16s" is text
    mask: int  # offset of the bit mask, -1 for the fields before the first
    bit: int


def _places(text: str) -> tuple[_Place, ...]:
    places: list[_Place] = []
    offset, mask, bit = 0, -1, 0
    for item in text.split(","):
        name, _, kind = item.strip().rpartition(" ")
        letters = f"{kind[1:]}s" if kind.startswith("S") else _LETTERS[kind]
        places.append(_Place(name, offset, letters, mask, bit))
        bit += _UNUSED_BITS if name == "Unused range" else 1
        if name.startswith("Bitmask"):
            mask, bit = offset, 0
        offset += struct.calcsize(f"={letters}")
    return tuple(places)


PLACES = {"FEI1": _places(_FEI1), "FEI2": _places(_FEI1 + _FEI2)}


def read_record(raw: bytes, kind: str, order: str) -> dict[str, Value]:
    """Return the fields of one record that are set.

    Parameters
    ----------
    raw
        At least the bytes of one record (`TYPES`).
    kind
        FEI1 or FEI2.
    order
        "<" or ">", byte order of the file. The masks are little-endian in either.
    """
    fields: dict[str, Value] = {}
    for place in PLACES[kind]:
        if place.mask >= 0 and not _bit(raw, place):
            continue
        (value,) = struct.unpack_from(order + place.letters, raw, place.offset)
        if isinstance(value, bytes):
            value = value.split(b"\0")[0].decode("latin-1").strip()
        if value != "" and not re.match("Bitmask|Reserved|Unused|Metadata", place.name):
            fields[place.name] = value
    return fields


def date(days: Value | None) -> str | None:
    """Return a Microsoft OLE date, days since 1899-12-30, as ISO 8601 without zone."""
    if not isinstance(days, float) or not _OLE_DAYS[0] <= days < _OLE_DAYS[1]:
        return None
    # The millisecond makes up for what a double loses of a whole second.
    return (_OLE_START + timedelta(seconds=int(days * 86_400 + 1e-3))).isoformat()


def _bit(raw: bytes, place: _Place) -> bool:
    (mask,) = struct.unpack_from("<I", raw, place.mask)
    return bool(mask >> place.bit & 1)
