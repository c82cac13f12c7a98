"""Atoms and their projected electrostatic potential, relative to the ice they displace.

Coordinates are in A, `[n, 3]` as (x, y, z), relative to the mean of all atoms. An orientation is
the matrix A of the Euler angles (rot, tilt, psi): an atom at r is imaged at (A r)_x, (A r)_y, the
beam runs along z. Images are in MRC orientation, the particle's centre at index box // 2.

Source: simulation.md section 3; Peng et al. 1996 (form factors); refinement.md 1.3 (angles).
"""

import math
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from algorithms.fourier import fast_size
from algorithms.simulate.transforms import forward_cropped, inverse

ELEMENTS = "HCNOPS"

# Five Gaussians per element: f(q) = sum a_i exp(-b_i q^2 / 4), f in A, q = 1/d in 1/A.
_PENG_A = {
    "H": (0.0349, 0.1201, 0.1970, 0.0573, 0.1195),
    "C": (0.0893, 0.2563, 0.7570, 1.0487, 0.3575),
    "N": (0.1022, 0.3219, 0.7982, 0.8197, 0.1715),
    "O": (0.0974, 0.2921, 0.6910, 0.6990, 0.2039),
    "P": (0.2548, 0.6106, 1.4541, 2.3204, 0.8477),
    "S": (0.2497, 0.5628, 1.3899, 2.1865, 0.7715),
}
_PENG_B = {
    "H": (0.5347, 3.5867, 12.3471, 18.9525, 38.6269),
    "C": (0.2465, 1.7100, 6.4094, 18.6113, 50.2523),
    "N": (0.2451, 1.7481, 6.1925, 17.3894, 48.1431),
    "O": (0.2067, 1.3815, 4.6943, 12.7105, 32.4726),
    "P": (0.2908, 1.8740, 8.5176, 24.3434, 63.2996),
    "S": (0.2681, 1.6711, 7.0267, 19.5377, 50.3888),
}
# Hydrogens that a model leaves out, per heavy atom: an average over protein.
_IMPLICIT_HYDROGENS = {"H": 0.0, "C": 1.3, "N": 1.1, "O": 0.15, "P": 0.0, "S": 0.3}
_EXCLUDED_VOLUME_A3 = {"H": 5.2, "C": 16.4, "N": 2.5, "O": 9.1, "P": 5.7, "S": 19.9}

VOLT_A2 = 47.878
"""Potential of an atom, V A^3 per A of form factor: h^2 / (2 pi m e)."""
WATER_PER_A3 = 0.0314
"""Molecules of vitreous water per A^3."""
# The splat grid is at least this fine: its aliases stay below 0.5 % of the power at Nyquist.
_SPLAT_STEP_A = 0.7
# Room around the particle in its box for the ringing of the band limit.
_BOX_MARGIN_A = 40.0

Floats = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """Atoms of one particle: positions `[n, 3]` A, elements `[n]` as indices into `ELEMENTS`."""

    positions_A: Floats
    elements: NDArray[np.uint8]
    b_factor_A2: float = 40.0

    @property
    def diameter_A(self) -> float:
        """Diameter of the sphere around the centre that holds every atom."""
        return 2.0 * float(np.linalg.norm(self.positions_A, axis=1).max())


def load_specimen(name: str = "ribosome30s", *, b_factor_A2: float = 40.0) -> Specimen:
    """Read a specimen that is shipped with the package.

    Raises
    ------
    ValueError
        There is none of this name.
    """
    file = resources.files("algorithms.simulate").joinpath("data", f"{name}.npz")
    if not file.is_file():
        raise ValueError(f"no specimen {name!r} is shipped; there is 'ribosome30s'")
    with file.open("rb") as stream, np.load(stream) as stored:
        positions = stored["position_0p01A"].astype(np.float64) * 0.01
        elements = stored["element"]
    return Specimen(positions_A=positions, elements=elements, b_factor_A2=b_factor_A2)


def form_factor(element: str, q: Floats | float) -> Floats:
    """Electron scattering factor in A of an atom at spatial frequency q in 1/A."""
    quarter = -0.25 * np.square(np.asarray(q, dtype=np.float64))
    terms = zip(_PENG_A[element], _PENG_B[element], strict=True)
    return np.sum([a * np.exp(b * quarter) for a, b in terms], axis=0)


def water_form_factor(q: Floats | float) -> Floats:
    """Scattering factor in A of a water molecule, atoms added without interference."""
    return form_factor("O", q) + 2.0 * form_factor("H", q)


def ice_potential_V() -> float:
    """Mean inner potential of vitreous ice in the independent-atom model: 4.57 V."""
    return VOLT_A2 * float(water_form_factor(0.0)) * WATER_PER_A3


def atom_potential(element: str, q: Floats | float, *, b_factor_A2: float = 0.0) -> Floats:
    """Transform of one heavy atom's potential in V A^3, minus the ice that it displaces.

    Parameters
    ----------
    element
        One of `ELEMENTS`; its implicit hydrogens are included.
    q
        Spatial frequencies in 1/A, any shape.
    b_factor_A2
        Thermal and alignment blur exp(-B q^2 / 4), on the atom and on its hole in the ice.
    """
    hydrogens = _IMPLICIT_HYDROGENS[element]
    q2 = np.square(np.asarray(q, dtype=np.float64))
    volumes = ((1.0, _EXCLUDED_VOLUME_A3[element]), (hydrogens, _EXCLUDED_VOLUME_A3["H"]))
    atom = VOLT_A2 * (form_factor(element, q) + hydrogens * form_factor("H", q))
    hole = np.sum([n * v * np.exp(-math.pi * v ** (2 / 3) * q2) for n, v in volumes], axis=0)
    return (atom - ice_potential_V() * hole) * np.exp(-0.25 * b_factor_A2 * q2)


def euler_matrix(rot_deg: float, tilt_deg: float, psi_deg: float) -> NDArray[np.float64]:
    """Matrix A(rot, tilt, psi), ZYZ, in RELION's convention: image coordinates are A r."""
    a, b, g = np.radians([rot_deg, tilt_deg, psi_deg])
    ca, sa, cb, sb, cg, sg = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(g), np.sin(g)
    return np.array(
        [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
            [sb * ca, sb * sa, cb],
        ]
    )


def box_for(diameter_A: float, pixel_size_A: float) -> int:
    """Even box in px that holds a particle of the diameter at any orientation."""
    return fast_size(math.ceil((diameter_A + _BOX_MARGIN_A) / pixel_size_A))


class Projector:
    """Projections of one specimen on boxes of one size; the form factors are made once.

    Parameters
    ----------
    specimen
        The atoms.
    pixel_size_A
        Of the projections.
    box_px
        Even; by default just large enough for every orientation.
    threads
        Of the transforms.

    Atoms are splatted with bilinear weights on a finer grid, one grid per element; the transform
    is divided by the weights' own transform, multiplied by the form factor and cropped: exact up
    to aliases of the fine grid.
    """

    def __init__(
        self,
        specimen: Specimen,
        pixel_size_A: float,
        *,
        box_px: int | None = None,
        threads: int = 1,
    ) -> None:
        self.box_px = box_px or box_for(specimen.diameter_A, pixel_size_A)
        if self.box_px % 2:
            raise ValueError(f"a projection box must be even, not {self.box_px} px")
        self._oversampling = max(2, math.ceil(pixel_size_A / _SPLAT_STEP_A))
        self._pixel_size_A = pixel_size_A
        self._threads = threads
        present = np.unique(specimen.elements)
        self._atoms = [specimen.positions_A[specimen.elements == index] for index in present]
        self._transfer = self._transfers(
            [ELEMENTS[index] for index in present], specimen.b_factor_A2
        )

    def _transfers(self, elements: list[str], b_factor_A2: float) -> NDArray[np.float32]:
        box, fine = self.box_px, self.box_px * self._oversampling
        ky, kx = np.fft.fftfreq(box), np.fft.rfftfreq(box)
        q = np.hypot(ky[:, None], kx[None, :]) / self._pixel_size_A
        # np.sinc includes pi; the fine grid's frequency in cycles per fine px is k box / fine.
        sinc = np.sinc(ky * box / fine)[:, None] * np.sinc(kx * box / fine)[None, :]
        scale = 1.0 / (np.square(sinc) * self._pixel_size_A**2)
        factors = [atom_potential(e, q, b_factor_A2=b_factor_A2) * scale for e in elements]
        return np.asarray(factors, dtype=np.float32)

    def project(
        self, matrix: Floats, *, offset_px: tuple[float, float] = (0.0, 0.0)
    ) -> NDArray[np.float32]:
        """Projected potential in V A, `[box, box]`, seen in one orientation.

        Parameters
        ----------
        matrix
            `[3, 3]`, see `euler_matrix`.
        offset_px
            (x, y) of the particle's centre relative to index box // 2, exact below a pixel.
        """
        box, over = self.box_px, self._oversampling
        fine = box * over
        centre = (np.asarray(offset_px) + box // 2) * over
        step = over / self._pixel_size_A
        grids = [_splat(atoms @ matrix[:2].T * step + centre, fine) for atoms in self._atoms]
        cropped = forward_cropped(np.asarray(grids), box, self._threads)
        spectrum = np.einsum("eyx,eyx->yx", cropped, self._transfer)
        return inverse(spectrum, (box, box), self._threads)


def _splat(points: Floats, size: int) -> NDArray[np.float32]:
    """Bilinear histogram `[size, size]` of points `[n, 2]` (x, y) in px; edges wrap."""
    low = np.floor(points).astype(np.int64)
    fx, fy = (points - low).T
    x0, y0 = (low % size).T
    x1, y1 = (x0 + 1) % size, (y0 + 1) % size
    flat = np.concatenate([y0 * size + x0, y0 * size + x1, y1 * size + x0, y1 * size + x1])
    weights = np.concatenate([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx])
    histogram = np.bincount(flat, weights, minlength=size * size)
    return histogram.reshape(size, size).astype(np.float32)
