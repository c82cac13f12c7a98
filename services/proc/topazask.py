"""From a micrograph and the options of a job to what Topaz is asked; without any heavy import.

Option names are RELION's (schemes.md section 15). Source: preprocessing.md section 4.2.
"""

import hashlib
import shlex
import shutil
from functools import lru_cache
from pathlib import Path

import msgspec

from services.kit.errors import Misuse
from services.kit.options import Options
from services.kit.schemes import output_root
from services.proc.plan import Image

# Less likely particles are never wanted; RELION filters at extraction (minimum_pick_fom).
THRESHOLD = -6.0
BUNDLED = ("resnet16", "resnet16_u32", "resnet16_u64", "resnet8_u32", "resnet8_u64")
INSTALL = (
    "install Topaz (topaz-em) in an environment of its own and name its program in fn_topaz_exe, "
    "or put it on the PATH"
)


class TopazRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Pick the particles of one micrograph with Topaz."""

    movie: str
    micrograph: str
    coordinates: str  # output, below the project
    pixel_size_A: float
    diameter_A: float
    program: str
    model: str = ""  # file, bundled name, or empty for Topaz's general model
    model_sha256: str = ""
    device: int = -1  # -1: the processor
    threshold: float = THRESHOLD
    arguments: tuple[str, ...] = ()
    found: str = ""  # what an earlier call has found in this micrograph, empty: call now


def program_of(name: str) -> str:
    """Return the path of Topaz's program.

    Raises
    ------
    Misuse
        It is not here.
    """
    words = shlex.split(name) or ["topaz"]
    path = shutil.which(words[0])
    if path is None:
        raise Misuse(f"Topaz ({words[0]}) is not here: {INSTALL}")
    return path


def model_digest(project: Path, model: str) -> str:
    """Return the SHA-256 of a model's file; empty for one that Topaz brings along.

    Raises
    ------
    Misuse
        There is no such file.
    """
    if model in ("", "None", *BUNDLED):
        return ""
    path = project / model
    try:
        status = path.stat()
        return _digest(path, status.st_size, status.st_mtime_ns)
    except OSError:
        bundled = ", ".join(BUNDLED)
        raise Misuse(
            f"{model}, option topaz_model, is neither a file nor one of {bundled}"
        ) from None


@lru_cache(maxsize=8)
def _digest(path: Path, _size: int, _mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def uses_topaz(options: Options) -> bool:
    """Say whether a picking job asks for Topaz, and for no other picker."""
    others = options.switch("do_log", False) or options.switch("do_refs", False)
    return options.switch("do_topaz", False) and not others


def topaz_request(image: Image, options: Options, process: str, project: Path) -> TopazRequest:
    """Return the request of a micrograph; `process` is the folder of the job.

    Raises
    ------
    Misuse
        Topaz is not installed, or an option cannot be used.
    """
    diameter = options.number("topaz_particle_diameter", -1.0)
    if diameter <= 0:
        raise Misuse(
            f"option topaz_particle_diameter of {options.job} is {diameter:g}: give the diameter "
            "in A"
        )
    # RELION's default is a wrapper of its own; Topaz itself is what is called here.
    program = options.text("fn_topaz_exe")
    program = "topaz" if program in ("", "relion_python_topaz") else program
    program_of(program)
    model = options.text("topaz_model")
    gpus = options.text("gpu_ids").replace(":", ",").split(",")
    device = int(gpus[0]) if gpus[0].isdigit() else 0
    return TopazRequest(
        movie=image.movie,
        micrograph=image.micrograph,
        coordinates=f"{output_root(process, image.micrograph)}_autopick.star",
        pixel_size_A=image.pixel_size_A,
        diameter_A=diameter,
        program=program,
        model="" if model == "None" else model,
        model_sha256=model_digest(project, model),
        device=device if options.switch("use_gpu", False) else -1,
        arguments=tuple(shlex.split(options.text("topaz_other_args"))),
    )
