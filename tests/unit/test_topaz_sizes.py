"""What Topaz is given: scale, radii, and micrographs that are scaled and normalised."""

import numpy as np
import pytest

from algorithms.picking.topaz import TopazSizes, preprocess, topaz_sizes


def test_sizes_and_small_micrographs_are_topazs():
    assert topaz_sizes(1.0, 180) == TopazSizes(factor=5, pick_radius_px=18, train_radius_px=4)
    assert topaz_sizes(3.0, 100).factor == 4
    image = np.random.default_rng(2).normal(40, 5, (203, 306)).astype(np.float32)
    small = preprocess(image, 4).numpy()
    # The frequencies of the smaller image, and then mean 0 and deviation 1.
    ny, nx = 50, 76
    spectrum = np.fft.rfft2(image)
    rows = [*range(ny // 2), *range(203 - ny // 2, 203)]
    direct = np.fft.irfft2(spectrum[rows, : nx // 2 + 1], s=(ny, nx))
    direct = (direct - direct.mean()) / direct.std()
    np.testing.assert_allclose(small, direct, atol=1e-4)
    assert abs(small.mean()) < 1e-6
    assert abs(small.std() - 1) < 1e-5
    for wrong in (np.ones((64, 64)), np.full((64, 64), np.nan), image[0], image[:3]):
        with pytest.raises(ValueError, match=r"scaled|constant"):
            preprocess(wrong, 4)


def test_nonsense_is_refused():
    for pixel, diameter in ((0, 100), (1, 0), (-1, 100)):
        with pytest.raises(ValueError, match="above 0"):
            topaz_sizes(pixel, diameter)
