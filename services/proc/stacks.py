"""Particle stacks, written image by image as they are cut out."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from algorithms.extraction import Cutting
from algorithms.formats import mrc
from services.kit.errors import Code, Refused


def write_stack(path: Path, cutting: Cutting, *, float16: bool) -> None:
    """Write the particles of a micrograph; the header, which needs their statistics, last.

    Parameters
    ----------
    path
        New file, in a private folder.
    cutting
        At least one particle.
    float16
        Mode 12: half the size.

    Raises
    ------
    Refused
        The micrograph holds values that are no numbers below a particle.
    """
    side = cutting.options.final_px
    with open(path, "wb", buffering=0) as file:
        file.seek(mrc.HEADER_BYTES)
        for images in cutting:
            _write(file.fileno(), _encoded(images, float16=float16))
        if not np.isfinite(cutting.statistics).all():
            raise Refused(Code.NOT_FINITE, "values below a particle are no numbers: make it anew")
        shape = len(cutting), side, side
        header = mrc.header_bytes(shape, cutting.pixel_size_A, cutting.statistics, float16=float16)
        file.seek(0)
        _write(file.fileno(), np.frombuffer(header, np.uint8))


def _encoded(images: Tensor, *, float16: bool) -> np.ndarray:
    images = images.cpu()
    if float16:
        images = images.clamp(-mrc.FLOAT16_MAX, mrc.FLOAT16_MAX).to(torch.float16)
    return images.numpy()


def _write(descriptor: int, array: np.ndarray) -> None:
    """Write all of an array: one call may write less, at 2 GB or when a disk fills up."""
    rest = np.ascontiguousarray(array).data.cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]
