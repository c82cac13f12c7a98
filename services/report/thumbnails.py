"""Small pictures for the report: low-passed, with robust contrast, as JPEG, PNG, data URIs."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy import fft

WIDTH_PX = 512
LOW_PASS_A = 20.0
JPEG_QUALITY = 72  # 24 thumbnails of 512 px stay near 1.5 MB


def thumbnail(
    image: np.ndarray,
    pixel_size_A: float,
    *,
    width_px: int = WIDTH_PX,
    low_pass_A: float = LOW_PASS_A,
) -> Image.Image:
    """Return an 8-bit picture of a micrograph, origin at the lower left.

    Parameters
    ----------
    image
        Micrograph [ny, nx] in MRC orientation, finite.
    pixel_size_A
        Pixel of the micrograph.
    width_px
        Longest side of the picture; smaller images keep their size.
    low_pass_A
        Resolution at which the low-pass filter has fallen to one half.

    Source: preprocessing.md 6.3 (thumbnail: low-passed 20 A, 1/99 percentile contrast).
    """
    ny, nx = image.shape
    scale = min(1.0, width_px / max(ny, nx))
    # Even sizes keep the cropped half spectrum simple: its Nyquist line is dropped by the filter.
    new_ny, new_nx = (max(2, 2 * round(size * scale / 2)) for size in (ny, nx))
    spectrum = np.asarray(fft.rfft2(image.astype(np.float32)))
    rows = np.round(fft.fftfreq(new_ny) * new_ny).astype(int)
    cropped = spectrum[rows % ny][:, : new_nx // 2 + 1].copy()
    sy = fft.fftfreq(new_ny)[:, None] * new_ny / (ny * pixel_size_A)
    sx = fft.rfftfreq(new_nx)[None, : cropped.shape[1]] * new_nx / (nx * pixel_size_A)
    cropped *= np.exp(-np.log(2.0) * (sx**2 + sy**2) * low_pass_A**2)
    small = np.asarray(fft.irfft2(cropped, s=(new_ny, new_nx)))
    return to_grey(small)


def to_grey(image: np.ndarray, low_percent: float = 1.0, high_percent: float = 99.0) -> Image.Image:
    """Return an 8-bit picture between two percentiles, origin at the lower left."""
    low, high = np.percentile(image, (low_percent, high_percent))
    spread = float(high - low) or 1.0
    grey = np.clip((image - low) / spread, 0.0, 1.0) * 255.0
    return Image.fromarray(grey[::-1].astype(np.uint8))


def posterized(picture: Image.Image, greys: int) -> Image.Image:
    """Return a grey picture with so many levels: a PNG of noise gets smaller by each that goes."""
    step = 255 / (greys - 1)
    return picture.point([round(round(value / step) * step) for value in range(256)])


def montage(
    images: Sequence[np.ndarray], *, columns: int, tile_px: int, gap_px: int = 3
) -> Image.Image:
    """Return particles side by side on white, each with its own contrast.

    Parameters
    ----------
    images
        Square images [n, n]; at least one.
    columns
        Tiles per row.
    tile_px
        Side of one tile.
    gap_px
        White space between tiles.
    """
    rows = -(-len(images) // columns)
    step = tile_px + gap_px
    sheet = Image.new("L", (columns * step - gap_px, rows * step - gap_px), 255)
    for index, image in enumerate(images):
        # A particle is noise at full resolution; what the eye can use is its low frequencies.
        tile = thumbnail(image, 1.0, low_pass_A=image.shape[0] / 8)
        tile = tile.resize((tile_px, tile_px), Image.Resampling.BICUBIC)
        sheet.paste(tile, (index % columns * step, index // columns * step))
    return sheet


def jpeg(picture: Image.Image) -> bytes:
    """Return a picture as JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def png(picture: Image.Image) -> bytes:
    """Return a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def uri(data: bytes) -> str:
    """Return a data URI of a PNG or JPEG."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()
