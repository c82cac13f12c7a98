"""What a refinement knows between two iterations, and what it is told to do.

Source: refinement.md sections 1 to 4 and 8.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from algorithms.refine.geometry import shell_counts
from algorithms.refine.sampling import Sampling


class RefineError(ValueError):
    """Something that cannot be refined; the message names it and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to refine; names in brackets are RELION's.

    Parameters
    ----------
    n_classes
        K.
    iterations
        Last iteration.
    gradient
        VDAM instead of EM [--grad].
    particle_diameter_A
        Of the masks [--particle_diameter].
    tau2_fudge
        T, weight of the data over the prior.
    zero_mask
        Fill what is outside of the particle with the mean of the background, else with noise.
    ctf, norm, scale, center_classes, flatten_solvent
        Whether to do so.
    adaptive_fraction
        Share of the weight that the second pass looks at.
    max_significants
        Poses of the first pass that are kept at most; 0: RELION's choice.
    strict_highres_A
        Limit of the resolution of both passes; 0: none [--strict_highres_exp].
    ini_high_A
        Low-pass filter of the first references; 0: by the box.
    inactivity
        VDAM: share of the mean class size below which a class is replaced; 0: never.
    replacement
        VDAM: what a class that ran empty becomes. `copy` of the class that changes most, as in
        RELION; or the half of a large class, which is `split`.
    mu
        VDAM: what the scalars keep of their old values.
    seed
        Of everything that is drawn.
    batch
        Particles in one matrix product.
    memory_bytes
        Of the largest temporary arrays, about.
    pad
        3D: padding of the references' transforms, 1 or 2 [--pad].
    symmetry
        3D: point group of the references [--sym].
    first_cc
        3D: the first iteration goes by correlation, with one pose for each particle; its result is
        filtered at `ini_high_A` [--firstiter_cc].
    skip_align
        3D: the poses of the particles are taken as they are [--skip_align].
    resize_reference
        3D: a first map, or mask, of another box or pixel size is made to fit [--trust_ref_size].
    exact_offset_prior
        Offsets of the prior in A throughout; False does as RELION does (quirk 1).
    double
        Double precision in the E-step: to check it, not to use it.
    coarse_precision
        Of the factors of the first pass's products, as `coarse.products` has it: bfloat16 where
        the processor has it, which case 21 of section 10 allows.
    """

    n_classes: int
    iterations: int
    particle_diameter_A: float
    gradient: bool = False
    tau2_fudge: float = 2.0
    zero_mask: bool = True
    ctf: bool = True
    norm: bool = True
    scale: bool = True
    center_classes: bool = True
    flatten_solvent: bool = True
    adaptive_fraction: float = 0.999
    max_significants: int = 0
    strict_highres_A: float = 0.0
    ini_high_A: float = 0.0
    inactivity: float = 0.1
    replacement: Literal["copy", "split"] = "copy"
    mu: float = 0.9
    seed: int = 0
    batch: int = 256
    memory_bytes: int = 1 << 28
    pad: int = 2
    symmetry: str = "C1"
    first_cc: bool = False
    skip_align: bool = False
    resize_reference: bool = False
    exact_offset_prior: bool = False
    double: bool = False
    coarse_precision: str = "medium"

    @property
    def real(self) -> torch.dtype:
        """Type of real numbers in the E-step."""
        return torch.float64 if self.double else torch.float32

    @property
    def cap(self) -> int:
        """Significant poses at most, 0 for no limit."""
        if self.max_significants > 0:
            return self.max_significants
        return 5 * self.n_classes if self.gradient else 0


@dataclass(kw_only=True)
class Moments:
    """VDAM's moments on the padded transform, flattened `[K, ...]`.

    `first` is complex `[2, K, ...]`, one for each half of the particles; `second` is real. In two
    dimensions the transform is `[PAD N, PAD N / 2 + 1]`, in three `[pad N, pad N, pad N / 2 + 1]`.
    """

    first: Tensor
    second: Tensor

    @classmethod
    def start(cls, n_classes: int, box: int, pad: int = 2, dim: int = 2) -> "Moments":
        """Return the moments before the first step."""
        size = pad * box
        n = size ** (dim - 1) * (size // 2 + 1)
        return cls(
            first=torch.zeros((2, n_classes, n), dtype=torch.complex64),
            second=torch.ones((n_classes, n), dtype=torch.float32),
        )


@dataclass(kw_only=True)
class Model:
    """References, noise and priors; spectra have N/2+1 shells.

    Parameters
    ----------
    pixel_A
        Pixel size, A.
    references
        `[K, N, N]` float32; in three dimensions `[K, N, N, N]`.
    fractions
        Share of the particles in each class `[K]` float64.
    prior_offset_A
        Mean offset of each class (x, y), `[K, 2]` float64.
    noise
        sigma^2 of real and imaginary part for each optics group, `[O, S]` float64.
    sigma_offset_A
        Standard deviation of the offsets.
    mean_norm
        Average of the particles' norm corrections.
    scales
        Intensity scale of each group of particles `[G]` float64.
    tau2, ssnr, coverage, sigma2
        Spectra of each class `[K, S]` float64: prior, data over prior, Fourier coverage, noise of
        the reference.
    resolution_shell
        Present resolution, as a shell.
    current_size
        Edge of the window of the present iteration, px.
    accuracy_deg, accuracy_A
        Of each class `[K]`.
    orientability
        Spectrum of what tells orientations apart, `[K, S]`.
    pdf_direction
        3D: share of the particles in each class and direction of the coarse grid, `[K, D]` float64;
        None before it is known: all the same.
    solvent_mask
        3D: what references are multiplied with, `[N, N, N]` float32; None: a sphere.
    mask_name
        Of its file, as the project names it; `None` where there is none.
    pad
        Padding of the references' transforms.
    place
        Where on VDAM's schedule the run is; 0: at the number of the iteration.
    window
        Edge of the window of the next iteration where a run decides on it, px; 0: it follows from
        the resolution.
    fsc
        Correlation of the halves of the particles `[S]`, where there are such.
    no_gain, moved_A
        Initial model: iterations since the resolution grew, and by how much offsets changed.
    """

    pixel_A: float
    references: Tensor
    fractions: Tensor
    prior_offset_A: Tensor
    noise: Tensor
    sigma_offset_A: float
    mean_norm: float
    scales: Tensor
    tau2: Tensor
    ssnr: Tensor
    coverage: Tensor
    sigma2: Tensor
    resolution_shell: int
    current_size: int
    accuracy_deg: Tensor
    accuracy_A: Tensor
    orientability: Tensor
    sampling: Sampling
    iteration: int = 0
    place: float = 0.0
    window: int = 0
    fsc: Tensor | None = None
    tau2_fudge: float = 2.0
    step_size: float = 0.0
    log_likelihood: float = 0.0
    mean_pmax: float = 0.0
    has_high_fsc: bool = False
    moments: Moments | None = None
    group_names: list[str] = field(default_factory=list)
    pdf_direction: Tensor | None = None
    solvent_mask: Tensor | None = None
    mask_name: str = "None"
    pad: int = 2
    no_gain: int = 0
    moved_A: float = 999.0

    @property
    def dim(self) -> int:
        """Dimensions of the references: 2 or 3."""
        return self.references.ndim - 1

    @property
    def box(self) -> int:
        """N, px."""
        return int(self.references.shape[-1])

    @property
    def n_classes(self) -> int:
        """K."""
        return int(self.references.shape[0])

    def shell_counts(self) -> Tensor:
        """Return the pixels of each shell."""
        return shell_counts(self.box)


@dataclass(kw_only=True)
class Particles:
    """What is known of each particle; arrays `[n]`, classes, groups and optics from 0."""

    psi_deg: np.ndarray
    offset_A: np.ndarray  # [n, 2], what the image has to be moved by, (x, y)
    classes: np.ndarray
    norm: np.ndarray
    log_likelihood: np.ndarray
    pmax: np.ndarray
    significant: np.ndarray
    group: np.ndarray
    optics: np.ndarray
    defocus_u_A: np.ndarray
    defocus_v_A: np.ndarray
    defocus_angle_deg: np.ndarray
    phase_shift_deg: np.ndarray
    bfactor_A2: np.ndarray
    ctf_scale: np.ndarray
    rot_deg: np.ndarray = field(default_factory=lambda: np.zeros(0))  # 0 where there are none
    tilt_deg: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        """Two-dimensional sets have no directions."""
        if not len(self.rot_deg):
            self.rot_deg, self.tilt_deg = (np.zeros(len(self.psi_deg)) for _ in range(2))

    def __len__(self) -> int:
        return len(self.psi_deg)


@dataclass(frozen=True, kw_only=True)
class OpticsGroup:
    """What the particles of one optics group have in common."""

    name: str
    voltage_kV: float
    spherical_aberration_mm: float
    amplitude_contrast: float


class Images(Protocol):
    """Where particle images come from."""

    @property
    def box(self) -> int: ...  # noqa: D102

    def read(self, indices: np.ndarray) -> Tensor:
        """Return images `[B, N, N]` float32."""
        ...


@dataclass(kw_only=True)
class DataSet:
    """Particles with their images and optics."""

    particles: Particles
    images: Images
    optics: list[OpticsGroup]
    pixel_A: float

    def __len__(self) -> int:
        return len(self.particles)
