"""Headers of DM4 and DM3 files: SerialEM's gain references.

Source: acquisition.md sections 3.1 and 3.3.
"""

import numpy as np

from algorithms.formats import dm4
from algorithms.formats.errors import FormatError
from mdcatch.parsers.record import Record
from mdcatch.parsers.window import Window, refusal
from services.kit.errors import Refused

LOW_TRUST = "calibration of the camera's program (low trust)"


def parse_dm4(window: Window, name: str) -> Record:
    """Return the record of a DM4 or DM3 file, from its tags alone.

    Parameters
    ----------
    window
        Onto the file.
    name
        Of the file, for messages.

    Raises
    ------
    Refused
        EMPTY_FILE, TRUNCATED, BAD_HEADER, UNSUPPORTED (no image of real numbers) or TOO_LARGE.
    """
    try:
        header = dm4.read_header(window.read, window.size, name)
    except FormatError as error:
        raise refusal(error) from None
    record = Record(format=f"dm{header.version}", kind="gain_reference")
    record.put("image_size_px", (header.nx, header.ny), "header")
    record.put("n_sections", header.nz, "header")
    record.put("pixel_format", np.dtype(header.dtype).name, "header")
    record.put("size_bytes", window.size, "header")
    record.put("complete", True, "header")
    try:
        record.put("image_pixel_size_A", header.pixel_size_A, "header")
    except Refused as error:
        record.notes.append(f"left out: {error.detail}")
    if record.get("image_pixel_size_A") is not None:
        record.put("pixel_size_source", LOW_TRUST, "header")
    if header.nz > 1:
        record.kind = "movie"
        record.put("n_frames", header.nz, "header")
    return record


def read_gain(window: Window, name: str) -> np.ndarray:
    """Return the image, `[ny, nx]` float32, in MRC orientation; see `algorithms.formats.dm4`.

    Parameters
    ----------
    window
        Onto the file.
    name
        Of the file, for messages.

    Raises
    ------
    Refused
        As `parse_dm4`.
    """
    try:
        return dm4.read_image(window.read, window.size, name)
    except FormatError as error:
        raise refusal(error) from None
