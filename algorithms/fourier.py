"""Fourier transforms of real images: every convention in one place.

Images are `[..., ny, nx]`, x fastest. Half spectra are `[..., ny, nx // 2 + 1]`: column kx holds
0 .. nx/2, row ky holds 0 .. ny/2 - 1 and then the negative frequencies. The forward transform
carries the factor 1/(nx ny), so that cropping or padding a spectrum keeps pixel *values*: the
mean of an image is `F[0, 0]` at any sampling. `shape` is always `(ny, nx)` of the real image.

A shift by (dx, dy) px moves the content towards higher indices: out(x) = in(x - d).

Source: preprocessing.md section 2.3.
"""

import math

import torch
from torch import Tensor

Shape = tuple[int, int]


def rfft2(image: Tensor) -> Tensor:
    """Half spectrum of real images `[..., ny, nx]`, divided by the number of pixels."""
    return torch.fft.rfft2(image, norm="forward")


def irfft2(spectrum: Tensor, shape: Shape) -> Tensor:
    """Real images `[..., ny, nx]` of half spectra; the inverse of `rfft2`."""
    return torch.fft.irfft2(spectrum, s=shape, norm="forward")


def power(spectrum: Tensor) -> Tensor:
    """Squared amplitudes of complex values: several times faster than `abs().square()`."""
    return spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)


def _check(spectrum: Tensor, shape: Shape) -> None:
    expected = (shape[0], shape[1] // 2 + 1)
    if tuple(spectrum.shape[-2:]) != expected:
        raise ValueError(
            f"a {shape[0]} x {shape[1]} image has a half spectrum of shape {expected}, "
            f"not {tuple(spectrum.shape[-2:])}"
        )


def crop_rfft(spectrum: Tensor, shape: Shape, new_shape: Shape) -> Tensor:
    """Low-frequency block of half spectra `[..., ny, nx//2+1]` for an image of `new_shape`.

    The mean pixel value stays. Of the new Nyquist row the negative-frequency one is kept.

    Raises
    ------
    ValueError
        `new_shape` is larger than `shape` along an axis.
    """
    _check(spectrum, shape)
    (ny, nx), (new_ny, new_nx) = shape, new_shape
    if new_ny > ny or new_nx > nx:
        raise ValueError(f"cannot crop the spectrum of a {shape} image to {new_shape}")
    columns = spectrum[..., : new_nx // 2 + 1]
    if new_ny == ny:
        return columns.contiguous()
    top = (new_ny + 1) // 2
    return torch.cat([columns[..., :top, :], columns[..., ny - new_ny // 2 :, :]], dim=-2)


def pad_rfft(spectrum: Tensor, shape: Shape, new_shape: Shape) -> Tensor:
    """Half spectra padded with zeros for an image of the larger `new_shape`, values kept.

    The old Nyquist row and column lose their mirror halves; data with power exactly there is
    changed at that frequency only.
    """
    _check(spectrum, shape)
    (ny, nx), (new_ny, new_nx) = shape, new_shape
    if new_ny < ny or new_nx < nx:
        raise ValueError(f"cannot pad the spectrum of a {shape} image to {new_shape}")
    out = spectrum.new_zeros((*spectrum.shape[:-2], new_ny, new_nx // 2 + 1))
    top = (ny + 1) // 2
    out[..., :top, : nx // 2 + 1] = spectrum[..., :top, :]
    out[..., new_ny - ny // 2 :, : nx // 2 + 1] = spectrum[..., top:, :]
    return out


def resample(image: Tensor, new_shape: Shape) -> Tensor:
    """Images `[..., ny, nx]` resampled to `new_shape` by cropping or padding their spectra."""
    shape = (int(image.shape[-2]), int(image.shape[-1]))
    if shape == new_shape:
        return image.clone()
    spectrum = rfft2(image)
    smaller = (min(shape[0], new_shape[0]), min(shape[1], new_shape[1]))
    spectrum = crop_rfft(spectrum, shape, smaller)
    return irfft2(pad_rfft(spectrum, smaller, new_shape), new_shape)


def frequencies(
    shape: Shape,
    pixel_size: float = 1.0,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Signed frequencies of a half spectrum: (ky `[ny, 1]`, kx `[1, nx//2+1]`).

    In cycles per px, or in 1/A where `pixel_size` is in A.
    """
    ky = torch.fft.fftfreq(shape[0], pixel_size, device=device, dtype=dtype)
    kx = torch.fft.rfftfreq(shape[1], pixel_size, device=device, dtype=dtype)
    return ky[:, None], kx[None, :]


def radius(
    shape: Shape,
    pixel_size: float = 1.0,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Length of the frequency vector of every element of a half spectrum `[ny, nx//2+1]`."""
    ky, kx = frequencies(shape, pixel_size, device=device, dtype=dtype)
    return torch.sqrt(ky * ky + kx * kx)


def phase_ramps(shape: Shape, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Separable factors of a shift: (`[..., ny, 1]`, `[..., 1, nx//2+1]`), complex64.

    Parameters
    ----------
    shape
        Of the image.
    dx, dy
        Shifts in px of that image, any equal shape `[...]`; one ramp pair per entry.

    The product of the two is exp(-2 pi i (kx dx + ky dy)): two short vectors of exponentials
    instead of a whole plane of them.
    """
    ky, kx = frequencies(shape, device=dx.device, dtype=torch.float64)
    angle_y = -2 * math.pi * dy.double()[..., None, None] * ky
    angle_x = -2 * math.pi * dx.double()[..., None, None] * kx
    one = torch.ones((), dtype=torch.float64, device=dx.device)
    ramp_y = torch.polar(one.expand_as(angle_y), angle_y)
    ramp_x = torch.polar(one.expand_as(angle_x), angle_x)
    return ramp_y.to(torch.complex64), ramp_x.to(torch.complex64)


def shift_rfft(spectrum: Tensor, shape: Shape, dx: Tensor | float, dy: Tensor | float) -> Tensor:
    """Half spectra of the images moved by (dx, dy) px: out(x) = in(x - d)."""
    _check(spectrum, shape)
    dx = torch.as_tensor(dx, dtype=torch.float64, device=spectrum.device)
    dy = torch.as_tensor(dy, dtype=torch.float64, device=spectrum.device)
    ramp_y, ramp_x = phase_ramps(shape, dx, dy)
    return spectrum * ramp_y * ramp_x


def centred_frequencies(
    size: int,
    pixel_size: float = 1.0,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Frequencies of a centred `[size, size]` spectrum: (sx `[1, size]`, sy `[size, 1]`)."""
    axis = (torch.arange(size, device=device, dtype=dtype) - size // 2) / (size * pixel_size)
    return axis[None, :], axis[:, None]


def fast_size(minimum: int) -> int:
    """Smallest even number >= `minimum` without prime factors above 5: quick to transform."""
    size = max(2, minimum + minimum % 2)
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


def zoom_spectrum(
    half: Tensor, shape: Shape, pixel_size: float, size: int, new_pixel_size: float
) -> Tensor:
    """Amplitude spectrum resampled to a centred `[size, size]` plane of any pixel size.

    Parameters
    ----------
    half
        Amplitudes of a half spectrum, float32 `[ny, nx//2+1]`, of a real image of `shape`.
    shape
        (ny, nx) of that image.
    pixel_size, new_pixel_size
        Before and after, same unit. Frequencies beyond the old Nyquist repeat periodically.
    size
        Even edge of the result; the origin is at (size // 2, size // 2).

    The spectrum is smoothed to the new sampling by band limiting (its transform is cropped), then
    evaluated at the new frequencies by a matrix transform: exact for every ratio of the sizes.
    """
    _check(half, shape)
    # The transform of a real, even spectrum is a real, even image; lag (0, 0) at [0, 0].
    lags = torch.fft.irfft2(half, s=shape, norm="forward")
    reach = size * new_pixel_size / pixel_size / 2.0
    x, row_of_x = _lags(shape[1], reach, half.device)
    y, row_of_y = _lags(shape[0], reach, half.device)
    lags = lags[row_of_y[:, None], row_of_x[None, :]]
    target = (torch.arange(size, device=half.device, dtype=torch.float64) - size // 2) * (
        pixel_size / (size * new_pixel_size)
    )
    angle_y = 2 * math.pi * target[:, None] * y[None, :]
    angle_x = 2 * math.pi * target[: size // 2 + 1, None] * x[None, :]
    cos_y, sin_y = torch.cos(angle_y).float(), torch.sin(angle_y).float()
    cos_x, sin_x = torch.cos(angle_x).float(), torch.sin(angle_x).float()
    plane = (cos_y @ lags @ cos_x.T - sin_y @ lags @ sin_x.T) / (shape[0] * shape[1])
    # Point symmetry gives the other half: value(-ky, -kx) = value(ky, kx).
    mirror = torch.flip(plane[:, 1 : size // 2], dims=(0, 1))
    return torch.cat([plane, torch.roll(mirror, 1, dims=0)], dim=1)


def _lags(n: int, reach: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Signed lags below `reach` of an axis of `n` px (float64), and where they are stored."""
    limit = min(math.ceil(reach) - 1, (n - 1) // 2)
    lag = torch.arange(-limit, limit + 1, device=device)
    return lag.double(), lag % n
