"""Names and shapes of the network's parameters. Source: class-ranker.md section 5.2."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from algorithms.ranker.types import RankerError

VERSION = "1"
# Place in cnn_layers, stride, whether a ReLU follows.
CONVOLUTIONS = (
    (0, 1, True), (3, 1, True), (5, 2, False),
    (7, 1, True), (10, 1, True), (12, 2, False),
    (14, 1, True), (17, 1, True), (19, 2, False),
)  # fmt: skip
_SIDE = 8  # px, after three strides of 2


@dataclass(frozen=True)
class Widths:
    """Widths of the layers.

    Parameters
    ----------
    convolution
        Channels of the first.
    extracted
        Values that sum up the image.
    hidden
        Of the head.
    features
        Of the class, beside the image.
    """

    convolution: int = 16
    extracted: int = 48
    hidden: int = 48
    features: int = 24

    @property
    def flat(self) -> int:
        """Values of the last convolution."""
        return 8 * self.convolution * _SIDE**2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter, by name."""
        weights: dict[str, tuple[int, ...]] = {}
        wide = 1
        for (place, _, _), times in zip(CONVOLUTIONS, (1, 1, 2, 2, 2, 4, 4, 4, 8), strict=True):
            out = self.convolution * times
            weights[f"cnn_layers.{place}"] = (out, wide, 3, 3)
            wide = out
        both = "classifier_images_and_features"
        weights |= {
            "feature_extractor.0": (self.extracted, self.flat),
            f"{both}.1": (self.hidden, self.extracted + self.features),
            f"{both}.4": (1, self.hidden),
            "classifier_images.1": (1, self.extracted),
            "classifier_features.0": (self.features // 2, self.features),
            "classifier_features.3": (1, self.features // 2),
        }
        biases = {f"{name}.bias": shape[:1] for name, shape in weights.items()}
        return {f"{name}.weight": shape for name, shape in weights.items()} | biases


# Heads that are never asked: a file may leave them out.
_SPARE = ("classifier_images.", "classifier_features.")


def checked(arrays: Mapping[str, np.ndarray], source: str) -> Widths:
    """Return the widths that parameters have.

    Raises
    ------
    RankerError
        One is missing, not finite, or of a shape that does not fit the others.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in arrays:
            raise RankerError(
                f"{source} has no parameter {name}: these are no weights of the class ranker"
            )
        return tuple(arrays[name].shape)

    first = shape("cnn_layers.0.weight")
    extractor = shape("feature_extractor.0.weight")
    head = shape("classifier_images_and_features.1.weight")
    if (len(first), len(extractor), len(head)) != (4, 2, 2):
        raise RankerError(
            f"{source}: parameters of the wrong shape: these are no weights of the ranker"
        )
    widths = Widths(first[0], extractor[0], head[0], head[1] - extractor[0])
    for name, wanted in widths.shapes().items():
        if name not in arrays and name.startswith(_SPARE):
            continue
        if shape(name) != wanted:
            raise RankerError(
                f"{source}: parameter {name} has the shape {shape(name)}, the architecture "
                f"needs {wanted}"
            )
        if not np.isfinite(arrays[name]).all():
            raise RankerError(f"{source}: parameter {name} holds values that are not finite")
    return widths
