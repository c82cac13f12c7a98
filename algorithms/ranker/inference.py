"""The network in numpy: scoring needs no torch. Source: class-ranker.md section 5.1."""

from collections.abc import Mapping

import numpy as np

from algorithms.ranker.architecture import CONVOLUTIONS

_CHUNK = 4  # images whose columns stay in the cache


class NumpyNetwork:
    """Scores with given parameters.

    Parameters
    ----------
    arrays
        Parameters by RELION's names, checked.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        def linear(name: str) -> tuple[np.ndarray, np.ndarray]:
            weight, bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]
            return np.ascontiguousarray(weight.T, np.float32), bias.astype(np.float32)

        self._convolutions = []
        for place, stride, is_rectified in CONVOLUTIONS:
            weight = arrays[f"cnn_layers.{place}.weight"]
            # Columns in the order (dy, dx, channel).
            matrix = weight.transpose(2, 3, 1, 0).reshape(-1, len(weight)).astype(np.float32)
            bias = arrays[f"cnn_layers.{place}.bias"].astype(np.float32)
            self._convolutions.append((matrix, bias, stride, is_rectified))
        self._extractor = linear("feature_extractor.0")
        self._hidden = linear("classifier_images_and_features.1")
        self._last = linear("classifier_images_and_features.4")

    def __call__(self, images: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return scores `[n]` float32 of images `[n, 64, 64]` and features `[n, 24]`."""
        parts = [
            self._score(images[start : start + _CHUNK], features[start : start + _CHUNK])
            for start in range(0, len(images), _CHUNK)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _score(self, images: np.ndarray, features: np.ndarray) -> np.ndarray:
        values = images.astype(np.float32)[..., None]  # channels last
        for matrix, bias, stride, is_rectified in self._convolutions:
            values = _columns(values, stride) @ matrix
            values += bias
            if is_rectified:
                np.maximum(values, 0.0, out=values)
        flat = values.transpose(0, 3, 1, 2).reshape(len(values), -1)
        extracted = flat @ self._extractor[0] + self._extractor[1]
        both = np.concatenate([extracted, features.astype(np.float32)], axis=1)
        hidden = np.maximum(both @ self._hidden[0] + self._hidden[1], 0.0)
        return (hidden @ self._last[0] + self._last[1])[:, 0]


def _columns(values: np.ndarray, stride: int) -> np.ndarray:
    """Return the 3 x 3 neighbourhood of each pixel, `[n, y, x, 9 c]`."""
    n, height, width, channels = values.shape
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = height // stride, width // stride
    out = np.empty((n, rows, columns, 9, channels), np.float32)
    for dy in range(3):
        for dx in range(3):
            taken = padded[:, dy : dy + height : stride, dx : dx + width : stride]
            out[..., 3 * dy + dx, :] = taken
    return out.reshape(n, rows, columns, -1)
