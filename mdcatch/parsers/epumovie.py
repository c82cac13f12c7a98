"""What an image XML of EPU, which describes the sum, says of the movie on disk.

Source: acquisition.md sections 1.5, 1.13, 2.3 to 2.5.
"""

from mdcatch.parsers.record import Record

EER = "EerFractionation"
_FALCON = ("Falcon", "Ceta")  # cameras whose movies have the sensor's own pixels
_TRUE = ("true", "1", "on")


def put_movie(record: Record) -> None:
    """Add pixel, size, frames, dose per frame and format of the movie, where they follow.

    Parameters
    ----------
    record
        Of an exposure's image XML, with all that the file states.
    """
    _put_geometry(record)
    fractionation = record.get("fractionation")
    frames = record.get("n_frames")
    if fractionation == EER and frames is None:
        frames = _estimate(record.get("frame_rate_hz"), record.get("exposure_time_s"))
        record.put("n_frames_estimate", frames, "frames x rate")
    dose = record.get("total_dose_e_per_A2")
    if dose is not None and frames:
        record.put("dose_per_frame_e_per_A2", dose / frames, "computed")
    if fractionation is None:
        record.notes.append("no FractionationSettings: by itself it tells of no movie")
    elif fractionation == EER:
        record.put("movie_format", "eer", "xml")
        record.notes.append(
            "the number of EER frames is not in the XML: n_frames_estimate is frame rate x "
            "exposure; take the real number from the movie"
        )
    elif record.unknown.get("EnableCompression", "").lower() in _TRUE:
        record.put("movie_format", "tiff", "xml")


def _put_geometry(record: Record) -> None:
    factor = _upsampling(record)
    if factor is None:
        record.flag(
            "super_resolution_unknown",
            "no SuperResolutionFactor: pixel and size of the movie can be those of the image or "
            "half and twice as large",
        )
        return
    if (pixel := record.get("image_pixel_size_A")) is not None:
        record.put("pixel_size_A", pixel / factor, "computed")
    if size := record.get("image_size_px"):
        record.put("movie_size_px", [factor * side for side in size], "computed")


def _upsampling(record: Record) -> int | None:
    """Return movie pixels per image pixel along one axis; only counting has super-resolution."""
    if record.get("counting") is False:
        return 1
    factor = record.get("super_resolution_factor")
    if factor is None and any(name in (record.get("detector") or "") for name in _FALCON):
        return 1
    return factor


def _estimate(rate_hz: float | None, exposure_s: float | None) -> int | None:
    """Return the frames of an exposure that does not state them, None when it cannot be told."""
    if rate_hz is None or exposure_s is None:
        return None
    return round(rate_hz * exposure_s) or None
