"""RELION's file set of one iteration: reading.

Source: refinement.md section 8.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algorithms.formats import mrc, star
from algorithms.refine.sampling import Sampling
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.types import (
    DataSet,
    Model,
    Moments,
    OpticsGroup,
    Particles,
    RefineError,
)

_HALF = re.compile(r"_half[12]$")  # at the end of the root of a half's model


class Stacks:
    """Particle images in MRC stacks.

    Parameters
    ----------
    names
        `number@stack` of each particle, numbers from 1.
    folder
        What the stacks' paths are relative to.
    """

    def __init__(self, names: list[str], folder: Path):
        self._folder = folder
        self._number = np.empty(len(names), np.int64)
        stacks: dict[str, int] = {}
        self._stack = np.empty(len(names), np.int64)
        for row, name in enumerate(names):
            number, at, path = name.partition("@")
            if not at or not number.isdigit():
                raise RefineError(f"particle {row + 1}: {name!r} is not NUMBER@STACK")
            self._number[row] = int(number) - 1
            self._stack[row] = stacks.setdefault(path, len(stacks))
        self._paths = list(stacks)
        self._open: dict[int, np.ndarray] = {}
        self._box = mrc.read_header(self._path(0)).nx if self._paths else 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is open: another process opens it itself."""
        return {**vars(self), "_open": {}}

    @property
    def box(self) -> int:
        """Edge of the images, px."""
        return self._box

    def read(self, indices: np.ndarray) -> Tensor:
        """Return images `[B, N, N]` float32."""
        out = np.empty((len(indices), self._box, self._box), np.float32)
        for stack in np.unique(self._stack[indices]):
            mine = np.flatnonzero(self._stack[indices] == stack)
            sections, numbers = self._sections(int(stack)), self._number[indices[mine]]
            if numbers.max() >= len(sections):
                row = int(indices[mine][int(numbers.argmax())])
                raise RefineError(
                    f"particle {row + 1} is image {numbers.max() + 1} of {self._paths[stack]}, "
                    f"which has {len(sections)}: extract again"
                )
            out[mine] = sections[numbers]
        return torch.from_numpy(out)

    def _path(self, stack: int) -> Path:
        path = self._folder / self._paths[stack]
        if not path.exists():
            raise RefineError(f"{path} is missing: extract its particles again")
        return path

    def _sections(self, stack: int) -> np.ndarray:
        if stack not in self._open:
            path = self._path(stack)
            header = mrc.read_header(path)
            if (header.nx, header.ny) != (self._box, self._box):
                first = int(np.flatnonzero(self._stack == stack)[0]) + 1
                raise RefineError(
                    f"particle {first}: {path} has images of {header.nx} x {header.ny} px, not "
                    f"{self._box} x {self._box}: extract all particles with one box"
                )
            if len(self._open) >= 512:
                self._open.pop(next(iter(self._open)))
            self._open[stack] = np.memmap(
                path,
                header.dtype,
                "r",
                header.data_offset,
                (header.nz, header.ny, header.nx),
            )
        return self._open[stack]


def read_data(path: Path, folder: Path) -> DataSet:
    """Return the particles of a `_data.star` or `particles.star`; images below a folder."""
    return data_of(star.load(path), path, folder)


def data_of(blocks: dict[str, star.Table], path: Path, folder: Path) -> DataSet:
    """Return the particles of the blocks of a file, as `read_data` does."""
    rows, optics = blocks["particles"], blocks["optics"]
    n = len(rows)
    names = rows.strings("rlnImageName")

    def floats(label: str, default: float = 0.0) -> np.ndarray:
        return rows.floats(label) if label in rows.columns else np.full(n, default)

    def ints(label: str) -> np.ndarray:
        return rows.ints(label) if label in rows.columns else np.ones(n, np.int64)

    numbers = {number: row for row, number in enumerate(optics.ints("rlnOpticsGroup"))}
    offsets = np.stack([floats("rlnOriginXAngst"), floats("rlnOriginYAngst")], axis=1)
    particles = Particles(
        rot_deg=floats("rlnAngleRot"),
        tilt_deg=floats("rlnAngleTilt"),
        psi_deg=floats("rlnAnglePsi"),
        offset_A=offsets,
        classes=ints("rlnClassNumber") - 1,
        norm=floats("rlnNormCorrection", 1.0),
        log_likelihood=floats("rlnLogLikeliContribution"),
        pmax=floats("rlnMaxValueProbDistribution"),
        significant=ints("rlnNrOfSignificantSamples"),
        group=_groups(rows, n)[0],
        optics=np.array([numbers[one] for one in ints("rlnOpticsGroup")]),
        defocus_u_A=floats("rlnDefocusU"),
        defocus_v_A=floats("rlnDefocusV"),
        defocus_angle_deg=floats("rlnDefocusAngle"),
        phase_shift_deg=floats("rlnPhaseShift"),
        bfactor_A2=floats("rlnCtfBfactor"),
        ctf_scale=floats("rlnCtfScalefactor", 1.0),
    )
    pixel = _pixel_A(path, optics, particles.optics)
    return DataSet(
        particles=particles, images=Stacks(names, folder), optics=_optics(optics), pixel_A=pixel
    )


def _optics(optics: star.Table) -> list[OpticsGroup]:
    """Return the optics groups of their block."""
    return [
        OpticsGroup(name=name, voltage_kV=kv, spherical_aberration_mm=cs, amplitude_contrast=q0)
        for name, kv, cs, q0 in zip(
            optics.strings("rlnOpticsGroupName"),
            optics.floats("rlnVoltage"),
            optics.floats("rlnSphericalAberration"),
            optics.floats("rlnAmplitudeContrast"),
            strict=True,
        )
    ]


def _pixel_A(path: Path, optics: star.Table, groups: np.ndarray) -> float:
    """Return the pixel size; it and the box have to be the same for all particles.

    Raises
    ------
    RefineError
        A particle, which is named, is of an optics group with another one.
    """
    names = optics.strings("rlnOpticsGroupName")
    for label in ("rlnImagePixelSize", "rlnImageSize"):
        if label not in optics.columns or not len(groups):
            continue
        sizes = optics.floats(label)[groups]
        apart = np.abs(sizes - sizes[0]) > 1e-4 * sizes[0]
        if apart.any():
            other = int(np.argmax(apart))
            raise RefineError(
                f"{path}: particle {other + 1} is of optics group {names[groups[other]]} with "
                f"{label} {sizes[other]:g}, particle 1 of {names[groups[0]]} with {sizes[0]:g}: "
                "extract all particles again with one box and one pixel size"
            )
    first = groups[0] if len(groups) else 0
    return float(optics.floats("rlnImagePixelSize")[first])


def _groups(rows: star.Table, n: int) -> tuple[np.ndarray, list[str]]:
    """Return the group of each particle and the groups' names: one for each micrograph."""
    for label in ("rlnGroupName", "rlnMicrographName"):
        if label in rows.columns:
            names, group = np.unique(rows.strings(label), return_inverse=True)
            return group, [str(name) for name in names]
    return np.zeros(n, np.int64), ["group"]


def group_names(rows: star.Table) -> list[str]:
    """Return the names of the groups that share an intensity scale."""
    return _groups(rows, len(rows))[1]


def read_model(root: Path) -> Model:
    """Return the model of an iteration, `root` being `.../run_itNNN` or `.../run_itNNN_halfH`."""
    blocks = star.load(root.with_name(f"{root.name}_model.star"))
    general, classes = blocks["model_general"], blocks["model_classes"]

    def number(label: str) -> float:
        return float(general.floats(label)[0])

    k, box = int(number("rlnNrClasses")), int(number("rlnOriginalImageSize"))
    pixel, shells = number("rlnPixelSize"), box // 2 + 1
    spectra = [blocks[f"model_class_{n + 1}"] for n in range(k)]
    noise = torch.zeros((int(number("rlnNrOpticsGroups")), shells), dtype=torch.float64)
    for group in range(len(noise)):
        table = blocks[f"model_optics_group_{group + 1}"]
        noise[group, torch.as_tensor(table.ints("rlnSpectralIndex"))] = torch.as_tensor(
            table.floats("rlnSigma2Noise")
        )

    def rows(label: str) -> Tensor:
        columns = [
            one.floats(label) if label in one.columns else np.zeros(shells) for one in spectra
        ]
        return torch.as_tensor(np.stack(columns))

    def column(label: str, default: float = 0.0) -> Tensor:
        values = classes.floats(label) if label in classes.columns else np.full(k, default)
        return torch.as_tensor(values)

    resolution = number("rlnCurrentResolution")
    dim, pad = int(number("rlnReferenceDimensionality")), int(number("rlnPaddingFactor"))
    return Model(
        pixel_A=pixel,
        references=_references(root, k, box, dim),
        fractions=column("rlnClassDistribution"),
        prior_offset_A=torch.stack(
            [column("rlnClassPriorOffsetX"), column("rlnClassPriorOffsetY")], dim=1
        ),
        noise=noise,
        sigma_offset_A=number("rlnSigmaOffsetsAngst"),
        mean_norm=number("rlnNormCorrectionAverage"),
        scales=torch.as_tensor(blocks["model_groups"].floats("rlnGroupScaleCorrection")),
        tau2=rows("rlnReferenceTau2"),
        ssnr=rows("rlnSsnrMap"),
        coverage=rows("rlnFourierCompleteness"),
        sigma2=rows("rlnReferenceSigma2"),
        resolution_shell=round(box * pixel / resolution),
        current_size=int(number("rlnCurrentImageSize")),
        accuracy_deg=column("rlnAccuracyRotations"),
        accuracy_A=column("rlnAccuracyTranslationsAngst"),
        orientability=rows("rlnSpectralOrientabilityContribution"),
        sampling=_sampling(root),
        tau2_fudge=number("rlnTau2FudgeFactor"),
        iteration=_iteration(root),
        log_likelihood=number("rlnLogLikelihood"),
        mean_pmax=number("rlnAveragePmax"),
        moments=_moments(root, k, box, pad, dim),
        pdf_direction=_pdf_direction(blocks, k) if dim == 3 else None,
        pad=pad,
        group_names=blocks["model_groups"].strings("rlnGroupName"),
    )


def _references(root: Path, k: int, box: int, dim: int) -> Tensor:
    if dim == 2:
        stack = mrc.read(root.with_name(f"{root.name}_classes.mrcs")).astype(np.float32)
        return torch.from_numpy(stack.reshape(k, box, box))
    names = (f"{root.name}_class{n + 1:03d}.mrc" for n in range(k))
    maps = [mrc.read(root.with_name(name)).astype(np.float32) for name in names]
    return torch.from_numpy(np.stack(maps))


def _pdf_direction(blocks: dict[str, star.Table], k: int) -> Tensor | None:
    names = [f"model_pdf_orient_class_{n + 1}" for n in range(k)]
    if any(name not in blocks for name in names):
        return None
    rows = [blocks[name].floats("rlnOrientationDistribution") for name in names]
    return torch.as_tensor(np.stack(rows))


def _iteration(root: Path) -> int:
    number = re.search(r"_it(\d+)$", _HALF.sub("", root.name))
    return int(number.group(1)) if number else 0


def _sampling(root: Path) -> Sampling:
    path = root.with_name(f"{_HALF.sub('', root.name)}_sampling.star")
    if not path.exists():
        return Sampling(psi_step_deg=10.0, offset_range_A=10.0, offset_step_A=2.0)
    table = star.load(path)["sampling_general"]

    def number(label: str) -> float:
        return float(table.floats(label)[0])

    kind: type[Sampling] = Sampling
    more: dict[str, Any] = {}
    if number("rlnIs3DSampling") > 0.0:
        kind = Sampling3D
        more["healpix_order"] = int(number("rlnHealpixOrder"))
        more["symmetry"] = table.strings("rlnSymmetryGroup")[0]
    return kind(
        psi_step_deg=number("rlnPsiStep"),
        offset_range_A=number("rlnOffsetRange"),
        offset_step_A=number("rlnOffsetStep"),
        perturbation=number("rlnSamplingPerturbInstance"),
        factor=number("rlnSamplingPerturbFactor"),
        **more,
    )


def _moments(root: Path, k: int, box: int, pad: int, dim: int) -> Moments | None:
    """Return the moments of VDAM, None where there are none."""
    size = pad * box
    if dim == 2:
        names = (["1moment.mrcs"], ["2moment.mrcs"])
    else:
        names = (
            [f"1moment{n + 1:03d}.mrc" for n in range(2 * k)],
            [f"2moment{n + 1:03d}.mrc" for n in range(k)],
        )
    paths = [[root.with_name(f"{root.name}_{name}") for name in part] for part in names]
    if not paths[0][0].exists():
        return None
    first, second = (
        torch.cat([_complex(mrc.read(path), size, dim) for path in part]) for part in paths
    )
    return Moments(first=first.reshape(2, k, -1), second=second.real.reshape(k, -1).contiguous())


def _complex(stack: np.ndarray, size: int, dim: int) -> Tensor:
    """Return interleaved, centred half transforms as `[n, flattened half spectrum]`."""
    values = torch.from_numpy(np.ascontiguousarray(stack, np.float32))
    shape = (-1, *(size for _ in range(dim - 1)), size // 2 + 1, 2)
    pairs = torch.view_as_complex(values.reshape(shape).contiguous())
    axes = tuple(range(1, dim))
    return torch.fft.ifftshift(pairs, dim=axes).reshape(len(pairs), -1)
