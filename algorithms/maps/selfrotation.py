"""How alike a map is to itself after a rotation.

The map is low-passed to its resolution, every shell is given the same power, and shells coarser
than the particle are left out: what is left correlates only where the details do, so a round
molecule does not look symmetric.

Source: refinement.md section 6 (the score there is a difference in real space; a correlation is
used here); Rossmann and Blow (1962) Acta Cryst. 15, 24.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from algorithms.maps import shells
from algorithms.orientation import euler, healpix

PER_RESOLUTION = 4.0  # px; linear interpolation loses little then
MOST_BOX = 96
DETAILS = 10.0  # across the particle: finer ones cost time and tell nothing more
FEW = 6000  # points that are enough to find peaks
COARSEST = 1.5  # periods of the particle's diameter: coarser shells are its envelope
BATCH = 2**24  # values sampled at once
LEAST_AROUND = 0.02  # of the box, to see the noise in
EMPTY = 1e-4  # of the particle's power: what is around it was cut away


class SelfRotation:
    """A map prepared for comparing it with itself.

    Parameters
    ----------
    volume
        `[N, N, N]` (z, y, x), N even.
    pixel_A
        Edge of a voxel.
    resolution_A
        Details finer than this are left out; at least two voxels.
    diameter_A
        Of the particle; the comparison is within that sphere.
    reliability
        Share of a shell's power that is signal, `[N/2+1]`, for instance the half-maps'
        correlation; None: all shells count the same.
    with_shape
        Compare the envelope as well: right for laying a group that is known to be there.

    Raises
    ------
    ValueError
        The particle has fewer than three details across, and its shape does not count.
    """

    def __init__(
        self,
        volume: Tensor,
        pixel_A: float,
        resolution_A: float,
        diameter_A: float,
        reliability: Tensor | None = None,
        with_shape: bool = False,
    ):
        resolution_A = max(resolution_A, 2.0 * pixel_A, diameter_A / DETAILS)
        self._coarsest = 0.5 if with_shape else COARSEST
        if diameter_A < 3.0 * resolution_A and not with_shape:
            raise ValueError(
                f"a particle of {diameter_A:g} A at {resolution_A:g} A has no details to compare: "
                "a symmetry needs a resolution of a third of the diameter or better"
            )
        self.pixel_A, self.diameter_A, self.resolution_A = pixel_A, diameter_A, resolution_A
        edge_A = volume.shape[-1] * pixel_A
        box = min(MOST_BOX, 2 * math.ceil(PER_RESOLUTION * edge_A / resolution_A / 2.0))
        self.box, self.step_A = box, edge_A / box
        self.origin = _centre_of_mass(volume, diameter_A / pixel_A / 2.0) * pixel_A
        self.signal: float | None = None  # share of the power; None: nothing tells
        self.map = self._detailed(volume, box, edge_A, reliability)[None, None]
        radius = diameter_A / 2.0 / self.step_A
        axis = torch.arange(-math.ceil(radius), math.ceil(radius) + 1, dtype=volume.dtype)
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).flip(-1)
        points = grid.reshape(-1, 3)
        self.points_A = (points[points.norm(dim=1) <= radius] * self.step_A).to(self.map)
        self.few_A = self.points_A[:: max(1, len(self.points_A) // FEW)]

    @property
    def angle_deg(self) -> float:
        """Rotation by which the rim of the particle moves by half of the resolution."""
        return math.degrees(self.resolution_A / self.diameter_A)

    @property
    def order(self) -> int:
        """HEALPix order whose step is no wider than that."""
        return min(4, healpix.order_for(self.angle_deg))

    def correlations(
        self, rotations: Tensor, centre_A: Tensor | None = None, quick: bool = False
    ) -> Tensor:
        """Return the correlation of the map with itself after each rotation, `[r]`.

        Parameters
        ----------
        rotations
            `[r, 3, 3]`.
        centre_A
            About which point, (x, y, z) from the middle of the box; None: the centre of mass.
        quick
            Compare at some of the points only.
        """
        centre = (self.origin if centre_A is None else centre_A).to(self.map)
        points = self.few_A if quick else self.points_A
        here = self._sampled(points[None] + centre)[0]
        here = here - here.mean()
        many = max(1, BATCH // len(points))
        found = []
        for part in rotations.to(self.map).split(many):
            there = self._sampled(torch.einsum("rij,pj->rpi", part, points) + centre)
            there = there - there.mean(1, keepdim=True)
            spread = here.norm() * there.norm(dim=1)
            found.append((there * here).sum(1) / spread.clamp(min=1e-30))
        return torch.cat(found)

    def about(self, axes: Tensor, folds: Sequence[int]) -> Tensor:
        """Return the correlation after 1/n of a turn about axes through the centre of mass.

        The map is read on circles about an axis; the power of their Fourier coefficients gives
        the correlation after every angle at once.

        Parameters
        ----------
        axes
            `[a, 2]`: rot and tilt in degrees.
        folds
            n of each column.

        Returns
        -------
        Tensor
            `[a, folds]`.
        """
        circles, weight = self._circles()
        frames = euler.matrices(torch.nn.functional.pad(axes, (0, 1))).mT.to(self.map)
        many = max(1, BATCH // circles.shape[0] // circles.shape[1])
        angles = 2.0 * math.pi / torch.tensor(folds, device=self.map.device)
        found = []
        for part in frames.split(many):
            points = torch.einsum("aij,cpj->acpi", part, circles).flatten(1, 2)
            values = self._sampled(points + self.origin.to(self.map)).unflatten(
                1, circles.shape[:2]
            )
            power = torch.fft.rfft(values, norm="forward").abs() ** 2
            power[..., 1:] *= 2.0
            power = torch.einsum("c,acm->am", weight, power)
            mean = (torch.einsum("c,acp->a", weight, values) / weight.sum() / values.shape[2]) ** 2
            power[:, 0] -= mean * weight.sum()
            m = torch.arange(power.shape[1], device=power.device)
            turned = power @ torch.cos(m[:, None] * angles)
            found.append(turned / power.sum(1, keepdim=True).clamp(min=1e-30))
        return torch.cat(found)

    def _circles(self) -> tuple[Tensor, Tensor]:
        """Return circles of points about z within the sphere, `[c, p, 3]` A, and their weights."""
        step = self.resolution_A / 2.0
        count = math.ceil(self.diameter_A / self.resolution_A)
        radius, height = torch.meshgrid(
            (torch.arange(count) + 0.5) * step,
            (torch.arange(-count, count) + 0.5) * step,
            indexing="ij",
        )
        inside = radius**2 + height**2 <= (self.diameter_A / 2.0) ** 2
        radius, height = radius[inside], height[inside]
        turn = torch.arange(2 * math.ceil(math.pi * count))
        turn = turn * (2.0 * math.pi / len(turn))
        points = torch.stack(
            [
                radius[:, None] * torch.cos(turn),
                radius[:, None] * torch.sin(turn),
                height[:, None].expand(-1, len(turn)),
            ],
            dim=-1,
        )
        return points.to(self.map), radius.to(self.map)

    def _sampled(self, points_A: Tensor) -> Tensor:
        """Return the map at points `[r, p, 3]` (x, y, z from the middle of the box), linearly."""
        scale = 2.0 / (self.box - 1)
        unit = points_A * (scale / self.step_A) + (self.box // 2 * scale - 1.0)
        sampled = torch.nn.functional.grid_sample(self.map, unit[None, :, None], align_corners=True)
        return sampled[0, 0, :, 0]

    def _detailed(
        self, volume: Tensor, box: int, edge_A: float, reliability: Tensor | None
    ) -> Tensor:
        """Return the map on a grid of `box` voxels with equal power in all shells that count."""
        size = volume.shape[-1]
        soft = _sphere(size, self.diameter_A / self.pixel_A / 2.0, self.origin / self.pixel_A)
        inside = soft.to(volume)
        mean = (volume * inside).sum() / inside.sum()
        spectrum = torch.fft.fftshift(shells.to_fourier((volume - mean) * inside), dim=(0, 1))
        spectrum = _resized(spectrum, size, box)
        power = shells.means(spectrum.real**2 + spectrum.imag**2, box)
        finest = min(box / 2.0, edge_A / self.resolution_A)
        coarsest = self._coarsest * edge_A / self.diameter_A
        r = torch.arange(len(power), dtype=power.dtype, device=power.device)
        band = ((r >= coarsest) & (r <= finest)).to(power)
        weight = band / torch.sqrt(power.clamp(min=1e-30))
        if reliability is not None:
            known = reliability.to(power)[: len(power)].clamp(0.0, 1.0)
            weight = weight * torch.nn.functional.pad(known, (0, len(power) - len(known)))
        # Origin of index 0 before the cut was voxel 0; it is voxel 0 of the new grid as well.
        white = shells.curve_on(weight, box).to(volume)
        everything = torch.fft.fftshift(shells.to_fourier(volume), dim=(0, 1))
        everything = shells.from_fourier(_resized(everything, size, box) * white, box)
        self.signal = self._signal(everything)
        return shells.from_fourier(spectrum * white, box)

    def _signal(self, volume: Tensor) -> float | None:
        """Return the share of the particle's power that is not as around it, None if all is."""
        radius, centre = self.diameter_A / 2.0 / self.step_A, self.origin / self.step_A
        far = radius + self.resolution_A / self.step_A
        square = volume.double() ** 2
        around = 1.0 - _sphere(self.box, far, centre).to(square)
        inside = _sphere(self.box, radius, centre).to(square)
        if float(around.sum()) < LEAST_AROUND * self.box**3:
            return None
        noise = (square * around).sum() / around.sum()
        share = float(noise / ((square * inside).sum() / inside.sum()).clamp(min=1e-30))
        return 1.0 - share if share > EMPTY else None


def _resized(spectrum: Tensor, size: int, box: int) -> Tensor:
    """Cut or pad a centred half spectrum so that its volume has `box` voxels along an edge."""
    shared = min(size, box) // 2
    out = spectrum.new_zeros((box, box, box // 2 + 1))
    theirs = slice(size // 2 - shared, size // 2 + shared)
    ours = slice(box // 2 - shared, box // 2 + shared)
    out[ours, ours, :shared] = spectrum[theirs, theirs, :shared]
    return torch.fft.ifftshift(out, dim=(0, 1))


def _sphere(size: int, radius: float, centre: Tensor, edge: float = 3.0) -> Tensor:
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    x, y, z = centre.double().cpu()
    square = ((axis - z) ** 2)[:, None, None] + ((axis - y) ** 2)[:, None] + (axis - x) ** 2
    out = ((torch.sqrt(square) - radius) / edge).clamp(0.0, 1.0)
    return 0.5 + 0.5 * torch.cos(torch.pi * out)


def _centre_of_mass(volume: Tensor, radius: float) -> Tensor:
    """Return the centre (x, y, z), px from the middle, of what is dense within the sphere."""
    size = volume.shape[-1]
    axis = torch.arange(size, dtype=torch.float64, device=volume.device) - size // 2
    centre = torch.zeros(3, dtype=torch.float64)
    for _ in range(3):
        inside = _sphere(size, radius, centre).to(volume.device)
        mass = volume.double() * inside
        # Above the mean of the rim: noise around the particle pulls the centre nowhere.
        mass = (mass - mass[inside > 0].std()).clamp(min=0.0)
        total = mass.sum().clamp(min=1e-300)
        new = [(mass.sum(dims) * axis).sum() / total for dims in ((0, 1), (0, 2), (1, 2))]
        centre = torch.stack(new).cpu()
    return centre
