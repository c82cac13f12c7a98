"""Every field a metadata file can give: type, unit, bounds, and what it means.

Source: acquisition.md sections 1.5, 2.3 to 2.7, 3.3, 5, 6; names as in the reference results of
the metadata samples.
"""

from typing import Literal, NamedTuple

from mdcatch.parsers.limits import Bounds

Type = Literal["text", "number", "whole", "yes or no", "time", "numbers", "wholes", "table"]

MAX_TEXT = 1024  # characters of one text field; a Windows path has at most 260, a long one 1000


class Spec(NamedTuple):
    """One field; a table is nested and its parser checks what is in it."""

    type: Type
    meaning: str
    bounds: Bounds = Bounds(float("-inf"), float("inf"))
    length: int | None = None  # of `numbers` and `wholes`; None: any

    @property
    def unit(self) -> str:
        """Unit of the value, "" where there is none."""
        return self.bounds.unit


def _text(meaning: str) -> Spec:
    return Spec("text", meaning)


def _time(meaning: str) -> Spec:
    return Spec("time", meaning)


def _flag(meaning: str) -> Spec:
    return Spec("yes or no", meaning)


def _number(unit: str, low: float, high: float, meaning: str) -> Spec:
    return Spec("number", meaning, Bounds(low, high, unit))


def _whole(low: int, high: int, meaning: str, unit: str = "") -> Spec:
    return Spec("whole", meaning, Bounds(low, high, unit))


def _numbers(unit: str, low: float, high: float, meaning: str, length: int | None = None) -> Spec:
    return Spec("numbers", meaning, Bounds(low, high, unit), length)


def _wholes(unit: str, low: int, high: int, meaning: str, length: int | None = None) -> Spec:
    return Spec("wholes", meaning, Bounds(low, high, unit), length)


def _table(meaning: str) -> Spec:
    return Spec("table", meaning)


_PX = 131_072  # twelve times the largest camera along one axis
_FRAMES = 65_535  # directories libtiff counts, and more than any camera writes
_MANY = 10_000_000

_INSTRUMENT = {
    "software": _text("program that wrote the file"),
    "software_version": _text("its version"),
    "file_version": _text("version of the file's own layout"),
    "microscope_id": _text("serial number of the instrument"),
    "microscope_model": _text("instrument, as the software names it"),
    "voltage_kV": _number("kV", 10.0, 1500.0, "acceleration voltage"),
    "cs_mm": _number("mm", 0.0, 20.0, "spherical aberration"),
    "magnification": _number("times", 1.0, 1e8, "nominal magnification"),
    "spot_index": _whole(0, 100, "spot size"),
    "probe_mode": _text("NanoProbe or MicroProbe"),
    "beam_diameter_um": _number("um", 0.0, 1e5, "illuminated diameter"),
    "c2_aperture": _text("second condenser aperture"),
    "objective_aperture": _text("objective aperture"),
    "energy_filter_on": _flag("energy filter in use"),
    "slit_inserted": _flag("energy slit inserted"),
    "slit_width_eV": _number("eV", 0.0, 1e4, "width of the energy slit"),
    "energy_loss_eV": _number("eV", -1e4, 1e5, "energy loss that is selected"),
    "phase_plate": _flag("phase plate in use"),
    "applied_defocus_um": _number("um", -1e5, 1e5, "defocus asked for; negative is underfocus"),
    "target_defocus_um": _number("um", -1e5, 1e5, "defocus asked for; negative is underfocus"),
    "lens_defocus_um": _number("um", -1e5, 1e5, "defocus read from the lens; not the target"),
    "beam_shift": _numbers("", -1e3, 1e3, "beam shift x, y; arbitrary unit, for grouping", 2),
    "beam_tilt": _numbers("rad", -1e3, 1e3, "beam tilt x, y", 2),
    "image_shift": _numbers("", -1e4, 1e4, "image shift x, y, in the file's unit", 2),
    "stage_um": _numbers("um", -1e5, 1e5, "stage position x, y and, if known, z"),
    "tilt_angle_deg": _number("degrees", -180.0, 180.0, "stage tilt, alpha"),
    "tilt_beta_deg": _number("degrees", -180.0, 180.0, "stage tilt, beta"),
    "tilt_axis_angle_deg": _number("degrees", -360.0, 360.0, "direction of the tilt axis"),
    "rotation_angle_deg": _number("degrees", -360.0, 360.0, "image rotation"),
}

_CAMERA = {
    "detector": _text("camera, as the software names it"),
    "detector_model": _text("camera, commercial name"),
    "camera_index": _whole(0, 100, "number of the camera in the software"),
    "counting": _flag("electrons are counted"),
    "super_resolution": _flag("frames are super-resolution"),
    "super_resolution_factor": _whole(1, 4, "movie pixels per image pixel along one axis"),
    "binning": _number("times", 0.125, 64.0, "camera binning; 0.5 is super-resolution"),
    "image_size_px": _wholes("px", 1, _PX, "width, height of the image described", 2),
    "movie_size_px": _wholes("px", 1, _PX, "width, height of the movie", 2),
    "image_pixel_size_A": _number("A", 0.01, 1e6, "pixel of the image described"),
    "pixel_size_A": _number("A", 0.01, 1e6, "pixel of the movie on disk"),
    "pixel_size_source": _text("where the pixel size comes from, when it is weak"),
    "header_voxel_A": _numbers("A", 0.0, 1e7, "pixel of the main header: cell / size"),
    "movie_format": _text("eer, tiff or mrc, where the file tells"),
    "pixel_format": _text("type of the pixel values"),
    "mode": _whole(0, 101, "MRC mode"),
    "compression": _text("compression of the frames"),
    "rotation_flip": _whole(0, 7, "SerialEM's code: turns plus 4 for a flip"),
    "gain_reference": _text("file of the gain reference"),
    "gain_corrected": _flag("gain is applied"),
    "defects_file": _text("file of the camera's defects"),
    "metadata_block_bytes": _whole(0, 65_536, "bytes of one extended header record", "bytes"),
    "extended_header_bytes": _whole(0, 2**31 - 1, "bytes of the extended header", "bytes"),
    "size_bytes": _whole(0, 2**62, "size of the file", "bytes"),
}

_EXPOSURE = {
    "exposure_time_s": _number("s", 0.0, 1e5, "exposure time"),
    "frame_rate_hz": _number("Hz", 0.0, 1e6, "frames the camera reads in a second"),
    "n_frames": _whole(1, _FRAMES, "frames of the movie"),
    "n_frames_estimate": _whole(1, _MANY, "frame rate x exposure; the movie knows better"),
    "n_frames_expected": _whole(1, _FRAMES, "fractions that were asked for"),
    "n_frames_declared": _whole(0, _FRAMES, "frames the header announces"),
    "raw_frames_total": _whole(1, _MANY, "camera frames in all fractions"),
    "raw_frames_per_fraction": _wholes("", 1, _MANY, "camera frames of each fraction"),
    "fractionation": _text("how frames were grouped into fractions"),
    "total_dose_e_per_A2": _number("e/A^2", 0.0, 1e4, "dose of the whole exposure"),
    "dose_per_frame_e_per_A2": _number("e/A^2", 0.0, 1e4, "dose of one frame"),
    "dose_on_camera_e_per_image_px": _number("e/px", 0.0, 1e9, "whole exposure, per image pixel"),
    "total_dose_e_per_px": _number("e/px", 0.0, 1e9, "whole exposure, per movie pixel"),
    "dose_rate_e_per_px_s": _number("e/px/s", 0.0, 1e9, "dose rate on the camera"),
    "frame_dose_sum_e_per_A2": _number("e/A^2", 0.0, 1e6, "sum of the listed frame doses"),
    "prior_dose_e_per_A2": _number("e/A^2", 0.0, 1e6, "dose before this exposure"),
    "frame_doses": _table("dose of a frame and number of such frames, in order"),
    "dose_conflict": _flag("listed frame doses and total dose disagree"),
    "all_checksums_valid": _flag("every fraction's checksum is valid"),
    "complete": _flag("the file holds all it announces"),
    "acquisition_time": _time("when the exposure was taken"),
}

_PLACE = {
    "acquisition_id": _text("the software's own name of the exposure"),
    "grid_square_id": _text("grid square"),
    "foil_hole_id": _text("foil hole"),
    "acquisition_area_id": _text("shot position of EPU's template"),
    "acquisition_seq_id": _text("running number of the shot"),
    "movie_file": _text("base name of the movie"),
    "image_file": _text("file the sections belong to"),
    "navigator_label": _text("item of SerialEM's navigator"),
    "hole_and_position": _table("multishot hole and position"),
    "n_sections": _whole(0, _MANY, "sections of the file"),
    "n_montage_sections": _whole(0, _MANY, "montage sections of the file"),
    "pieces": _table("piece coordinates of a montage"),
    "first_section": _table("first section of a montage"),
}

_SESSION = {
    "session_name": _text("name of the session"),
    "name": _text("name of the sample or session"),
    "start_time": _time("when the session was started"),
    "storage_folders": _table("folders on the microscope's computer"),
    "atlas_path": _text("atlas file, on the microscope's computer"),
    "clustering_mode": _text("how shots share a stage position"),
    "clustering_radius_um": _number("um", 0.0, 1e5, "largest distance of such shots"),
    "dose_fractions_output_format": _text("movie format, in EPU's words"),
    "image_file_format": _text("format of the summed images"),
    "autoloader_slot": _text("slot of the grid"),
    "phase_plate_enabled": _flag("session uses a phase plate"),
    "tilted_acquisition": _flag("session is taken at a tilt"),
    "hole_size_um": _number("um", 0.0, 1e5, "diameter of the foil holes"),
    "hole_spacing_um": _number("um", 0.0, 1e5, "distance of the foil holes"),
    "grid_type": _text("kind of the foil"),
    "grid_geometry": _text("lattice of the holes"),
    "presets": _table("camera and beam of each imaging step"),
    "n_tiles": _whole(0, _MANY, "tiles of the atlas"),
    "n_grid_square_nodes": _whole(0, _MANY, "grid squares listed, over all tiles"),
    "n_unique_nodes": _whole(0, _MANY, "grid squares, each once"),
    "first_node_ids": _table("the first grid squares"),
    "atlas_node_id": _text("the square's number in the atlas"),
    "image_path": _text("overview image, on the microscope's computer"),
    "n_target_locations": _whole(0, _MANY, "foil holes found in the square"),
    "n_selected": _whole(0, _MANY, "foil holes selected for acquisition"),
    "center_px": _number("px", -1e7, 1e7, "place in the overview image; of an entry of sections"),
    "first_target_ids": _table("the first foil holes"),
    "n_children": _whole(0, _MANY, "elements directly below the root"),
}

FIELDS: dict[str, Spec] = {**_INSTRUMENT, **_CAMERA, **_EXPOSURE, **_PLACE, **_SESSION}
