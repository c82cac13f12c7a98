"""`<software>_session_params`: what a session was opened with, for people and for other programs.

The folder of the movies, an empty line, then `key = value` lines in alphabetical order, under the
names that MDCatch gave them. Source: acquisition.md sections 1.5 and 1.11 (7).
"""

from pathlib import Path
from typing import Any

from mdcatch.launch.checks import suggestion
from mdcatch.launch.known import Known
from mdcatch.launch.options import DEFAULT_CS_MM, frame_dose
from mdcatch.launch.request import OpenRequest

# Our field -> MDCatch's key.
_MEASURED = {
    "exposure_time_s": "ExposureTime",
    "detector": "Detector",
    "detector_model": "DetectorModel",
    "binning": "Binning",
    "spot_index": "SpotSize",
    "probe_mode": "ProbeMode",
    "magnification": "Magnification",
    "beam_diameter_um": "BeamSize",
    "slit_width_eV": "EnergySelectionSlitWidth",
    "microscope_id": "MicroscopeID",
    "software_version": "SoftwareVersion",
    "applied_defocus_um": "AppliedDefocus",
    "target_defocus_um": "AppliedDefocus",
    "phase_plate": "PhasePlateUsed",
    "c2_aperture": "Aperture[C2].Name",
    "objective_aperture": "Aperture[OBJ].Name",
    "super_resolution_factor": "SuperResolutionFactor",
    "acquisition_time": "AcquisitionTime",
}


def file_name(known: Known) -> str:
    """Return the name of the file: `EPU_session_params`, `SerialEM_session_params`."""
    return f"{software(known)}_session_params"


def software(known: Known) -> str:
    """Return the program that took the session: EPU, SerialEM, Tomography, or Unknown."""
    said = known.metadata.get("software") if known.metadata is not None else None
    kind = known.metadata.format if known.metadata is not None else ""
    if said and "tomo" in said.lower():
        return "Tomography"
    if kind == "mdoc" or (said and "serialem" in said.lower()):
        return "SerialEM"
    return "EPU" if kind.startswith("epu") else "Unknown"


def text(request: OpenRequest, known: Known) -> str:
    """Return the content of the file; what is unknown is not in it."""
    values = {
        key: value for key, value in _values(request, known).items() if value not in (None, "")
    }
    lines = [f"{key} = {_shown(values[key])}" for key in sorted(values)]
    return "\n".join([f"Movies dir: {_movies(request, known)}", "", *lines]) + "\n"


def _movies(request: OpenRequest, known: Known) -> str:
    root = request.movie_root
    pattern = known.pattern(root)
    return str(root / pattern) if pattern else str(root)


def _values(request: OpenRequest, known: Known) -> dict[str, Any]:
    exposure, files, metadata = known.exposure, known.files, known.metadata
    measured = {}
    if metadata is not None:
        measured = {name: metadata.get(key) for key, name in _MEASURED.items() if metadata.get(key)}
    cs = exposure.spherical_aberration_mm
    return (
        measured
        | {
            "Software": software(known),
            "Microscope": known.microscope.name if known.microscope is not None else None,
            "Voltage": exposure.voltage_kV,
            "Cs": DEFAULT_CS_MM if cs is None else cs,
            "AmplitudeContrast": request.amplitude_contrast,
            "PixelSpacing": exposure.pixel_size_A,
            "Dose": exposure.dose_e_A2,
            "NumSubFrames": exposure.n_frames,
            "DosePerFrame": frame_dose(known),
            "MotionCorBinning": exposure.bin_factor,
            "GroupFrames": exposure.group_frames,
            "EERGrouping": exposure.eer.group if exposure.eer else None,
            "GainReference": files.gain,
            "DefectFile": files.defects,
            "MTF": files.mtf,
            "Pipeline": request.pipeline,
            "Picker": request.picker,
            "PickerModel": request.picker_model,
            "Symmetry": request.symmetry,
        }
        | _particle(request, known)
    )


def _particle(request: OpenRequest, known: Known) -> dict[str, Any]:
    sizes, pixel_A = suggestion(request, known), known.exposure.processing_pixel_A
    found: dict[str, Any] = {
        "FilamentWidth" if request.helical else "ParticleDiameter": request.particle_diameter_A
    }
    if sizes is None or pixel_A is None:
        return found
    return found | {
        "MaskSize": round(sizes.boxes.mask_A / pixel_A),
        "BoxSize": sizes.boxes.box_px,
        "BoxSizeSmall": sizes.boxes.scaled_px,
        "TubeDiameter": sizes.boxes.tube_A,
        "BoxDistance": sizes.distance_px,
    }


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Path):
        return str(value)
    return " ".join(str(value).split())
