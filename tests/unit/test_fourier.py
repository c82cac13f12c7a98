"""The conventions of `algorithms.fourier`, checked against direct sums and known images."""

import math

import pytest
import torch

from algorithms import fourier

SHAPES = [(12, 16), (13, 16), (12, 15), (13, 15)]


def image(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4)) + 3.0


@pytest.mark.parametrize("shape", SHAPES)
def test_mean_is_the_first_coefficient(shape: tuple[int, int]) -> None:
    spectrum = fourier.rfft2(image(shape))
    assert spectrum[0, 0].real == pytest.approx(float(image(shape).mean()), rel=1e-6)
    assert torch.allclose(fourier.irfft2(spectrum, shape), image(shape), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_whole_pixel_shift_is_a_roll(shape: tuple[int, int]) -> None:
    spectrum = fourier.shift_rfft(fourier.rfft2(image(shape)), shape, 3.0, -2.0)
    rolled = torch.roll(image(shape), (-2, 3), dims=(0, 1))
    assert torch.allclose(fourier.irfft2(spectrum, shape), rolled, atol=1e-4)


def test_fractional_shift_moves_a_spot_towards_higher_indices() -> None:
    y, x = torch.arange(64.0)[:, None], torch.arange(48.0)[None, :]

    def spot(x0: float, y0: float) -> torch.Tensor:
        return torch.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 18.0)

    spectra = fourier.rfft2(spot(20.0, 30.0))[None].expand(2, -1, -1)
    moved = fourier.shift_rfft(
        spectra, (64, 48), torch.tensor([0.25, -1.5]), torch.tensor([0.5, 2.25])
    )
    images = fourier.irfft2(moved, (64, 48))
    assert torch.allclose(images[0], spot(20.25, 30.5), atol=1e-5)
    assert torch.allclose(images[1], spot(18.5, 32.25), atol=1e-5)


@pytest.mark.parametrize("new", [(32, 24), (31, 23), (64, 24), (32, 48)])
def test_cropping_keeps_mean_and_slow_waves(new: tuple[int, int]) -> None:
    def wave(ny: int, nx: int) -> torch.Tensor:
        y, x = torch.arange(ny)[:, None] / ny, torch.arange(nx)[None, :] / nx
        return 5.0 + torch.cos(2 * math.pi * (3 * x - 4 * y)) + torch.sin(2 * math.pi * 5 * y)

    spectrum = fourier.crop_rfft(fourier.rfft2(wave(64, 48)), (64, 48), new)
    assert torch.allclose(fourier.irfft2(spectrum, new), wave(*new), atol=1e-5)
    back = fourier.pad_rfft(spectrum, new, (64, 48))
    assert torch.allclose(fourier.irfft2(back, (64, 48)), wave(64, 48), atol=1e-5)
    assert torch.allclose(fourier.resample(wave(64, 48), new), wave(*new), atol=1e-5)


def test_cropped_nyquist_row_is_the_negative_one() -> None:
    spectrum = torch.arange(8.0)[:, None].expand(8, 5)
    cropped = fourier.crop_rfft(spectrum, (8, 8), (4, 4))
    assert cropped[:, 0].tolist() == [0.0, 1.0, 6.0, 7.0]


def test_wrong_shapes_are_refused() -> None:
    spectrum = fourier.rfft2(image((12, 16)))
    with pytest.raises(ValueError, match="half spectrum"):
        fourier.crop_rfft(spectrum, (12, 20), (6, 8))
    with pytest.raises(ValueError, match="cannot crop"):
        fourier.crop_rfft(spectrum, (12, 16), (14, 16))
    with pytest.raises(ValueError, match="cannot pad"):
        fourier.pad_rfft(spectrum, (12, 16), (10, 16))


@pytest.mark.parametrize("shape", SHAPES)
def test_radius_is_the_length_of_the_frequency(shape: tuple[int, int]) -> None:
    ky, kx = fourier.frequencies(shape, 2.0)
    assert ky[1, 0] == pytest.approx(1 / (2.0 * shape[0]))
    assert ky[-1, 0] == -ky[1, 0] and kx[0, 1] == pytest.approx(1 / (2.0 * shape[1]))
    assert torch.allclose(fourier.radius(shape, 2.0), torch.hypot(ky, kx))


def test_zoom_at_the_same_sampling_keeps_the_spectrum() -> None:
    # White noise would lose its edge lags; a spectrum of a small disc has none.
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    spot = torch.exp(-((x - 32) ** 2 + (y - 32) ** 2) / 8.0)
    half = fourier.rfft2(spot).abs()
    zoomed = fourier.zoom_spectrum(half, (64, 64), 1.0, 64, 1.0)
    whole = torch.fft.fftshift(torch.fft.fft2(spot, norm="forward").abs())
    assert torch.allclose(zoomed, whole, atol=2e-6)


def test_zoom_puts_features_at_the_new_frequencies() -> None:
    shape, pixel, size, new_pixel = (120, 168), 1.0, 64, 1.45
    ky, kx = fourier.frequencies(shape, pixel)
    half = torch.exp(-((kx - 0.11) ** 2 + (ky - 0.17) ** 2) / (2 * 0.03**2))
    half[:, 0] = 0.0
    zoomed = fourier.zoom_spectrum(half, shape, pixel, size, new_pixel)
    sx, sy = fourier.centred_frequencies(size, new_pixel)
    expected = torch.exp(-((sx - 0.11) ** 2 + (sy - 0.17) ** 2) / (2 * 0.03**2))
    expected += torch.exp(-((sx + 0.11) ** 2 + (sy + 0.17) ** 2) / (2 * 0.03**2))
    # The box cuts through no tail here but the amplitude at kx = 0, which was emptied.
    assert torch.allclose(zoomed, expected, atol=0.01)


def test_fast_sizes() -> None:
    assert [fourier.fast_size(n) for n in (1, 7, 253, 485, 1023)] == [2, 8, 256, 486, 1024]
