"""The pipeline `scipion`: a workflow file for Scipion 3, and a Scipion project made from it.

Names of protocols and of their parameters are those of the plugins pwem, relion, cistem, sphire,
topaz and emfacilities. Source: acquisition.md section 1.12.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mdcatch.launch.checks import suggestion
from mdcatch.launch.known import Known
from mdcatch.launch.options import (
    DEFAULT_CS_MM,
    ROUNDNESS,
    background_px,
    frame_dose,
    has_phase_plate,
    patches,
)
from mdcatch.launch.request import OpenRequest

Protocol = dict[str, Any]

IMPORT, MODEL, MOTION, CTF, PICKING, EXTRACTION, MONITOR = (str(n) for n in range(1, 8))
# Nothing new for so long ends the import: a night without movies does not.
STREAM_TIMEOUT_S = 18 * 3600
FILE_TIMEOUT_S = 30
BATCH = 5  # micrographs at a time, for all that streams
# Topaz was trained on micrographs of about 8 A per pixel.
TOPAZ_PIXEL_A = 8.0
_HOST = {"hostName": "localhost"}
_STREAM = {"streamingWarning": None, "streamingSleepOnWait": 0, "streamingBatchSize": BATCH}


def workflow(request: OpenRequest, known: Known, copied: Mapping[str, str]) -> list[Protocol]:
    """Return the protocols of a session, in their order.

    Parameters
    ----------
    request, known
        Checked: diameter, pixel, voltage, dose, frames and a movie are known.
    copied
        gain, defects -> name in the project's folder.
    """
    paths = {what: f"{request.project}/{name}" for what, name in copied.items()}
    found = [_import(request, known), _motion(request, known), _ctf(known)]
    found[0]["gainFile"], found[1]["defectFile"] = paths.get("gain"), paths.get("defects")
    found += _picking(request, known)
    found.append(_extraction(request, known))
    found.append(_monitor([protocol["object.id"] for protocol in found]))
    return found


def dumps(protocols: list[Protocol]) -> bytes:
    """Return the text of a workflow file."""
    return json.dumps(protocols, indent=4).encode() + b"\n"


def create_command(scipion: str, project: Path) -> list[str]:
    """Return the command line that makes the Scipion project around its workflow file."""
    script = "pyworkflow.project.scripts.create"
    command = [scipion, "python", "-m", script, project.name, str(workflow_path(project))]
    return [*command, str(project.parent)]


def schedule_command(scipion: str, project: Path) -> list[str]:
    """Return the command line that starts all protocols of a Scipion project."""
    return [scipion, "python", "-m", "pyworkflow.project.scripts.schedule", project.name]


def workflow_path(project: Path) -> Path:
    """Return where the workflow of a project is."""
    return project / f"{project.name}.json"


def _protocol(number: str, name: str, label: str, **parameters: Any) -> Protocol:
    return {
        "object.className": name,
        "object.id": number,
        "object.label": label,
        "object.comment": "",
        "_useQueue": False,
        "_prerequisites": "",
        "_queueParams": None,
        "runName": None,
        "runMode": 0,
        **parameters,
    }


def _import(request: OpenRequest, known: Known) -> Protocol:
    exposure = known.exposure
    metadata = known.metadata
    magnification = metadata.get("magnification") if metadata is not None else None
    cs = exposure.spherical_aberration_mm
    return _protocol(
        IMPORT,
        "ProtImportMovies",
        "import movies",
        importFrom=0,
        filesPath=str(request.movie_root),
        filesPattern=known.pattern(request.movie_root),
        copyFiles=False,
        haveDataBeenPhaseFlipped=False,
        acquisitionWizard=None,
        voltage=exposure.voltage_kV,
        sphericalAberration=DEFAULT_CS_MM if cs is None else cs,
        amplitudeContrast=request.amplitude_contrast,
        magnification=round(magnification) if magnification else 50000,
        samplingRateMode=0,
        samplingRate=exposure.pixel_size_A,
        scannedPixelSize=7.0,
        doseInitial=0.0,
        dosePerFrame=frame_dose(known),
        gainFile=None,
        darkFile=None,
        dataStreaming=True,
        timeout=STREAM_TIMEOUT_S,
        fileTimeout=FILE_TIMEOUT_S,
        blacklistDateFrom=None,
        blacklistDateTo=None,
        useRegexps=True,
        blacklistFile=None,
        inputIndividualFrames=False,
        numberOfIndividualFrames=None,
        stackFrames=False,
        writeMoviesInProject=False,
        movieSuffix="_frames.mrcs",
        deleteFrames=False,
    )


def _motion(request: OpenRequest, known: Known) -> Protocol:
    exposure, files = known.exposure, known.files
    return _protocol(
        MOTION,
        "ProtRelionMotioncor",
        "motion correction",
        sumFrame0=1,
        sumFrameN=0,
        doDW=True,
        saveNonDW=False,
        savePSsum=True,
        dosePSsum=4.0,
        doComputePSD=False,
        doComputeMicThumbnail=True,
        extraParams="",
        bfactor=150,
        patchX=patches(known),
        patchY=5,
        groupFrames=exposure.group_frames,
        binFactor=float(exposure.bin_factor),
        gainRot=files.gain_rotation,
        gainFlip=files.gain_flip,
        defectFile=None,
        eerGroup=exposure.eer.group if exposure.eer else 32,
        eerSampling=0,
        **_HOST,
        numberOfThreads=request.workers or 8,
        numberOfMpi=1,
        inputMovies=f"{IMPORT}.outputMovies",
    )


def _ctf(known: Known) -> Protocol:
    return _protocol(
        CTF,
        "CistemProtCTFFind",
        "CTF estimation",
        recalculate=False,
        sqliteFile=None,
        inputType=1,
        avgFrames=3,
        usePowerSpectra=True,
        windowSize=512,
        lowRes=30.0,
        highRes=5.0,
        minDefocus=5000.0,
        maxDefocus=50000.0,
        stepDefocus=500.0,
        slowSearch=False,
        fixAstig=True,
        astigmatism=100.0,
        findPhaseShift=has_phase_plate(known),
        minPhaseShift=0.0,
        maxPhaseShift=180.0,
        stepPhaseShift=10.0,
        **_HOST,
        numberOfThreads=5,
        numberOfMpi=1,
        **_STREAM,
        inputMicrographs=_MICROGRAPHS,
    )


_MICROGRAPHS = f"{MOTION}.outputMicrographsDoseWeighted"


def _picking(request: OpenRequest, known: Known) -> Iterator[Protocol]:
    """Yield the picker, and before it the import of its trained model."""
    if request.picker == "log":
        yield _log(request, known)
        return
    if request.picker_model is not None:
        is_topaz = request.picker == "topaz"
        name = "TopazProtImport" if is_topaz else "SphireProtCryoloImport"
        yield _protocol(MODEL, name, "import model", modelPath=request.picker_model)
    yield _topaz(request, known) if request.picker == "topaz" else _cryolo(request, known)


def _log(request: OpenRequest, known: Known) -> Protocol:
    diameter = request.particle_diameter_A or 0.0
    return _protocol(
        PICKING,
        "ProtRelionAutopickLoG",
        "picking: Laplacian of Gaussian",
        boxSize=_sizes(request, known)[0],
        minDiameter=int(ROUNDNESS * diameter),
        maxDiameter=round(diameter),
        areParticlesWhite=False,
        maxResolution=20.0,
        threshold=0.0,
        threshold2=999.0,
        extraParams="",
        **_HOST,
        numberOfMpi=4,
        **_STREAM,
        inputMicrographs=_MICROGRAPHS,
    )


def _topaz(request: OpenRequest, known: Known) -> Protocol:
    pixel_A = known.exposure.processing_pixel_A or 1.0
    scale = max(1, round(TOPAZ_PIXEL_A / pixel_A))
    radius = max(1, round((request.particle_diameter_A or 0.0) / 2 / (pixel_A * scale)))
    return _protocol(
        PICKING,
        "TopazProtPicking",
        "picking: Topaz",
        modelInitialization=0 if request.picker_model else 1,
        prevTopazModel=f"{MODEL}.outputModel" if request.picker_model else None,
        generalModel=0,
        radius=radius,
        boxSize=_sizes(request, known)[0],
        threshold=-6.0,
        doDenoise=False,
        scale=scale,
        preExtra="",
        gpuList=_gpus(request),
        **_HOST,
        # One thread is Scipion's own.
        numberOfThreads=len(_gpus(request).split()) + 1,
        numberOfMpi=1,
        **_STREAM,
        inputMicrographs=_MICROGRAPHS,
    )


def _cryolo(request: OpenRequest, known: Known) -> Protocol:
    trained = request.picker_model is not None
    return _protocol(
        PICKING,
        "SphireProtCRYOLOPicking",
        "picking: crYOLO",
        inputModelFrom=2 if trained else 0,
        inputModel=f"{MODEL}.outputModel" if trained else None,
        conservPickVar=0.3,
        lowPassFilter=False,
        absCutOffFreq=0.1,
        numCpus=4,
        input_size=1024,
        boxSize=0,
        max_box_per_image=600,
        useGpu=True,
        gpuList=", ".join(_gpus(request).split()),
        **_HOST,
        numberOfThreads=len(_gpus(request).split()),
        numberOfMpi=1,
        **_STREAM,
        inputMicrographs=_MICROGRAPHS,
    )


def _extraction(request: OpenRequest, known: Known) -> Protocol:
    box, scaled, background = _sizes(request, known)
    return _protocol(
        EXTRACTION,
        "ProtRelionExtractParticles",
        "particle extraction",
        downsampleType=0,
        boxSize=box,
        doRescale=True,
        rescaledSize=scaled,
        doInvert=True,
        doNormalize=True,
        backDiameter=background,
        stddevWhiteDust=-1.0,
        stddevBlackDust=-1.0,
        **_STREAM,
        **_HOST,
        numberOfMpi=5,
        inputCoordinates=f"{PICKING}.outputCoordinates",
    )


def _monitor(watched: list[str]) -> Protocol:
    return _protocol(
        MONITOR,
        "ProtMonitorSummary",
        "summary",
        inputProtocols=[number for number in watched if number != MODEL],
        samplingInterval=60,
        stddevValue=0.04,
        ratio1Value=1.15,
        ratio2Value=4.5,
        maxDefocus=40000.0,
        minDefocus=1000.0,
        astigmatism=1000.0,
        monitorTime=30000.0,
        cpuAlert=101.0,
        memAlert=101.0,
        swapAlert=101.0,
        doGpu=False,
        gpusToUse="0",
        doNetwork=False,
        netInterfaces=1,
        doDiskIO=False,
        doMail=False,
        emailFrom="",
        emailTo="",
        smtp="",
        doInflux=False,
        publishCmd="",
    )


def _sizes(request: OpenRequest, known: Known) -> tuple[int, int, int]:
    """Return box, scaled box and background diameter, in px."""
    found, pixel_A = suggestion(request, known), known.exposure.processing_pixel_A
    if found is None or pixel_A is None:
        raise ValueError("the boxes are not known: check the request first")
    return found.boxes.box_px, found.boxes.scaled_px, background_px(found, pixel_A)


def _gpus(request: OpenRequest) -> str:
    return " ".join((request.gpus or "0").split(","))
