"""Square windows cut out of a micrograph and resampled: what extraction does many times over.

Source: preprocessing.md section 5.2, steps 1 to 5.
"""

import math

import numpy as np
import torch
from torch import Tensor

from algorithms import ctf as ctfs
from algorithms import extractloops
from algorithms.ctf import Ctf
from algorithms.jit import compiled

# So many rows tell the level of a micrograph well enough to subtract it.
SAMPLE_ROWS = 8


def level(image: np.ndarray | Tensor) -> float:
    """Rough mean of an image `[ny, nx]`; 0 where it is not finite.

    Windows are cut out relative to it, so that single precision is spent on what differs.
    """
    sample = image[:: max(1, image.shape[0] // SAMPLE_ROWS)]
    mean = float(sample.double().mean() if isinstance(sample, Tensor) else sample.mean(dtype=float))
    return mean if math.isfinite(mean) else 0.0


def gather(
    image: np.ndarray | Tensor, x: np.ndarray, y: np.ndarray, box: int, zero: float
) -> Tensor:
    """Windows `[n, box, box]`, float32, whose element box // 2 lies on the centre.

    Parameters
    ----------
    image
        Micrograph `[ny, nx]` of any number type. An array is cut row by row, a tensor by index on
        its device.
    x, y
        Whole px `[n]`. Outside the image its edge pixels repeat, along x first.
    box
        Side.
    zero
        Value that becomes 0.
    """
    if isinstance(image, Tensor):
        return _by_index(image, x, y, box) - zero
    windows = np.empty((len(x), box, box), dtype=np.float32)
    shift = np.float32(zero)
    kernel = compiled(extractloops.cut) if image.dtype == np.float32 else None
    if kernel is not None:
        kernel(image, x - box // 2, y - box // 2, shift, windows)
        return torch.from_numpy(windows)
    ny, nx = image.shape
    for window, left, top in zip(windows, x - box // 2, y - box // 2, strict=True):
        if 0 <= left <= nx - box and 0 <= top <= ny - box:
            np.subtract(image[top : top + box, left : left + box], shift, out=window)
        else:
            _over_the_border(image, int(left), int(top), shift, window)
    return torch.from_numpy(windows)


def _over_the_border(
    image: np.ndarray, left: int, top: int, shift: np.float32, window: np.ndarray
) -> None:
    """Fill a window that reaches over a border; the pixels there repeat."""
    (ny, nx), box = image.shape, len(window)
    rows = slice(max(0, -top), min(box, ny - top))
    columns = slice(max(0, -left), min(box, nx - left))
    inside = image[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop]
    np.subtract(inside, shift, out=window[rows, columns])
    window[rows, : columns.start] = window[rows, columns.start, None]
    window[rows, columns.stop :] = window[rows, columns.stop - 1, None]
    window[: rows.start] = window[rows.start]
    window[rows.stop :] = window[rows.stop - 1]


def _by_index(image: Tensor, x: np.ndarray, y: np.ndarray, box: int) -> Tensor:
    ny, nx = image.shape
    reach = np.arange(box) - box // 2
    rows = torch.from_numpy((y[:, None] + reach).clip(0, ny - 1)).to(image.device)
    columns = torch.from_numpy((x[:, None] + reach).clip(0, nx - 1)).to(image.device)
    return image[rows[:, :, None], columns[:, None, :]].to(torch.float32)


def rescaled(
    windows: Tensor,
    scaled: int,
    ramps: tuple[Tensor, Tensor] | None = None,
    transfer: Tensor | None = None,
) -> Tensor:
    """Fourier-cropped windows `[n, scaled, scaled]`; pixel values are kept.

    Parameters
    ----------
    windows
        `[n, box, box]`.
    scaled
        New side, even, at most `box`. Of the two Nyquist rows the positive one stays, as in the
        reference; for images without power there they are the same.
    ramps
        Phase factors along x and y `[n, scaled]` that move the content, see `ramps_of`.
    transfer
        Factor `[scaled, scaled // 2 + 1]` or `[n, ...]` of every frequency, see `transfer_of`.
    """
    box = windows.shape[-1]
    if box == scaled and ramps is None and transfer is None:
        return windows
    half = scaled // 2
    # Columns beyond the new Nyquist are dropped before the second half of the work; then y is the
    # axis of the memory, until the way back along x.
    spectrum = torch.fft.rfft(windows, norm="forward")[..., : half + 1].transpose(1, 2)
    spectrum = torch.fft.fft(spectrum.contiguous(), norm="forward")
    if box > scaled:
        spectrum = torch.cat([spectrum[..., : half + 1], spectrum[..., box - half + 1 :]], dim=2)
    if ramps is not None:
        spectrum *= ramps[0][:, : half + 1, None]
        spectrum *= ramps[1][:, None, :]
    if transfer is not None:
        spectrum *= transfer.transpose(-1, -2)
    spectrum = torch.fft.ifft(spectrum, norm="forward").transpose(1, 2)
    return torch.fft.irfft(spectrum, n=scaled, norm="forward")


def ramps_of(shift: np.ndarray, box: int, scaled: int, device: torch.device | str) -> Tensor:
    """Phase factors `[n, scaled]` along one axis that move content back: out(r) = in(r + shift).

    Parameters
    ----------
    shift
        Px of the window `[n]`.
    box, scaled
        Sides of the window and of what it is cropped to; frequencies 0 .. scaled / 2, then the
        negative ones.
    device
        Where they are.
    """
    half = scaled // 2
    angles = np.outer(shift, np.arange(half + 1)) * (2 * math.pi / box)
    ramps = np.empty((len(angles), scaled), dtype=np.complex64)
    np.cos(angles, out=ramps.real[:, : half + 1], casting="same_kind")
    np.sin(angles, out=ramps.imag[:, : half + 1], casting="same_kind")
    np.conjugate(ramps[:, half - 1 : 0 : -1], out=ramps[:, half + 1 :])
    return torch.from_numpy(ramps).to(device)


def transfer_of(
    ctf: Ctf,
    box: int,
    scaled: int,
    pixel_size_A: float,
    *,
    flip_only: bool = False,
    intact_first_peak: bool = False,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the CTF `[scaled, scaled // 2 + 1]` at the frequencies that `rescaled` keeps.

    Parameters
    ----------
    ctf
        Of the micrograph.
    box
        Side of the window.
    scaled
        Side after Fourier cropping.
    pixel_size_A
        Of the micrograph.
    flip_only
        The sign alone: phases are flipped, amplitudes stay.
    intact_first_peak
        1 up to the first peak.
    device
        Where the result is.
    """
    half = scaled // 2
    orders = np.concatenate([np.arange(half + 1), np.arange(1 - half, 0)])
    step = 1.0 / (box * pixel_size_A)
    sy = torch.from_numpy(orders * step).to(device)[:, None]
    sx = torch.arange(half + 1, device=device, dtype=torch.float64)[None, :] * step
    phases = ctfs.phase(ctf, sx, sy)
    # RELION's sign: positive before the first zero, for particles that are made white.
    values = torch.sin(phases)
    if flip_only:
        values = torch.where(values < 0, -1.0, 1.0)
    if intact_first_peak:
        values = torch.where(phases.abs() < math.pi / 2, 1.0, values)
    return values.to(torch.float32)
