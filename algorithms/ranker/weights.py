"""Weights of the network: our own files, RELION 5's checkpoint, RELION 4's TorchScript.

Nothing that a file holds is executed as Python: own files are safetensors, a checkpoint is read
with torch's loader of plain tensors, and the source text that RELION's checkpoint carries is not
looked at. A TorchScript file runs in torch's own interpreter, which has no Python.

Source: class-ranker.md sections 5.2, 5.3 and 9.5.
"""

import gzip
import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from algorithms.formats.atomic import atomic_write
from algorithms.ranker.architecture import VERSION, checked
from algorithms.ranker.constants import RELION, Constants
from algorithms.ranker.inference import NumpyNetwork
from algorithms.ranker.selection import DEFAULT_THRESHOLD
from algorithms.ranker.types import RankerError

MAX_BYTES = 64 * 1024 * 1024
# Anything else that the system refuses is a fault of the machine, which may pass.
UNREADABLE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
KIND = "coldstream class ranker"
# What the card of weights that are given to others says.
CARD = ("training_set", "label_rule", "splits", "metrics", "limits", "licence")
DEFAULT = Path(__file__).with_name("data") / "default.safetensors"
RELION5 = "classranker_v1.0.ckpt of RELION 5 (TORCH_HOME or ~/.cache/torch, below hub/checkpoints)"

Network = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights and what belongs to them.

    Parameters
    ----------
    source
        Where they are from, for messages and tables.
    digest
        SHA-256 of the file.
    constants
        How features become their input.
    network
        Scores `[n]` of images `[n, 64, 64]` and normalised features `[n, 24]`.
    card
        What people should know of them; empty for RELION's.
    arrays
        Parameters by name; empty for TorchScript.
    """

    source: str
    digest: str
    constants: Constants
    network: Network
    card: dict[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def threshold(self) -> float:
        """From which score on classes are kept unless somebody says otherwise."""
        found = self._threshold("default")
        return DEFAULT_THRESHOLD if found is None else found

    @property
    def ask_threshold(self) -> float | None:
        """From which score on a person is asked, where the card says it."""
        return self._threshold("drop")

    @property
    def is_experimental(self) -> bool:
        """Whether the card says so: these weights did not pass their tests."""
        return str(self.card.get("status", "")).startswith("experimental")

    def _threshold(self, name: str) -> float | None:
        given = self.card.get("thresholds")
        value = given.get(name) if isinstance(given, dict) else None
        return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def read(path: Path) -> Weights:
    """Read weights from a file, whatever kind it is.

    Raises
    ------
    RankerError
        They cannot be read, or are of another network.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RankerError(f"{path} is larger than {MAX_BYTES} bytes: it is no weights file")
        content = path.read_bytes()
    except UNREADABLE as error:
        raise RankerError(f"the weights {path} cannot be read: {error.strerror}") from error
    return loads(content, str(path))


def loads(content: bytes, source: str) -> Weights:
    """Read weights from the bytes of a file; see `read`."""
    digest = hashlib.sha256(content).hexdigest()
    if content[:2] == b"\x1f\x8b":
        content = _unpacked(content, source)
    if content[8:9] == b"{":
        return _own(content, source, digest)
    names = _members(content)
    if any(name.endswith(("/constants.pkl", "/model.json")) for name in names):
        return _script(content, source, digest)
    return _checkpoint(content, source, digest)


def dumps(arrays: Mapping[str, np.ndarray], constants: Constants, card: Mapping[str, Any]) -> bytes:
    """Return an own weights file.

    Parameters
    ----------
    arrays
        Parameters by name, float32.
    constants
        How features become the input.
    card
        The model card; has at least the fields `CARD`.
    """
    checked(arrays, "new weights")
    missing = [name for name in CARD if name not in card]
    if missing:
        raise RankerError(f"the card of new weights has no {', '.join(missing)}")
    from safetensors.numpy import save

    about = {
        "architecture": VERSION,
        "constants": constants.dumps(),
        "card": dict(card),
    }
    # One entry: the library writes several in any order, and the same weights make the same file.
    metadata = {KIND: json.dumps(about, sort_keys=True)}
    plain = {name: np.ascontiguousarray(arrays[name], np.float32) for name in sorted(arrays)}
    return save(plain, metadata)


def write(
    path: Path, arrays: Mapping[str, np.ndarray], constants: Constants, card: Mapping[str, Any]
) -> None:
    """Write an own weights file in one step; see `dumps`."""
    atomic_write(path, dumps(arrays, constants, card))


def _unpacked(content: bytes, source: str) -> bytes:
    try:
        with gzip.open(io.BytesIO(content)) as file:
            plain = file.read(MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise RankerError(f"{source}: broken gzip: {error}") from error
    if len(plain) > MAX_BYTES:
        raise RankerError(f"{source} unpacks to more than {MAX_BYTES} bytes: it is no weights file")
    return plain


def _members(content: bytes) -> list[str]:
    try:
        return zipfile.ZipFile(io.BytesIO(content)).namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return []


def _own(content: bytes, source: str, digest: str) -> Weights:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        about: dict[str, Any] = json.loads(metadata.get(KIND, "{}"))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise RankerError(f"{source}: broken safetensors file: {error}") from error
    if not about:
        raise RankerError(f"{source} holds tensors, but no weights of the class ranker")
    if about.get("architecture") != VERSION:
        raise RankerError(
            f"{source} is for architecture {about.get('architecture')!r}; this version knows "
            f"{VERSION!r}"
        )
    checked(arrays, source)
    return Weights(
        source=source,
        digest=digest,
        constants=Constants.loads(about.get("constants", "")),
        network=NumpyNetwork(arrays),
        card=about.get("card", {}),
        arrays=arrays,
    )


def _checkpoint(content: bytes, source: str, digest: str) -> Weights:
    """Read a checkpoint of RELION 5; only tensors, numbers and texts are unpickled."""
    import torch

    refused = (
        f"{source} is no weights file of the class ranker: give an own .safetensors file or "
        f"{RELION5}"
    )
    try:
        with warnings.catch_warnings(action="ignore"):  # of what it refuses next
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
        raise RankerError(f"{refused}; torch says: {_first_line(error)}") from error
    state = found.get("model_state_dict") if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise RankerError(f"{refused}; it has no model_state_dict")
    try:
        arrays = {str(name): value.detach().float().numpy() for name, value in state.items()}
    except (TypeError, RuntimeError) as error:  # sparse, quantised
        raise RankerError(f"{refused}; torch says: {_first_line(error)}") from error
    widths = checked(arrays, source)
    if widths.features != len(RELION.mean):
        raise RankerError(
            f"{source} is for {widths.features} features; RELION's 24 are computed here"
        )
    return Weights(
        source=source, digest=digest, constants=RELION, network=NumpyNetwork(arrays), arrays=arrays
    )


def _script(content: bytes, source: str, digest: str) -> Weights:
    """Read a TorchScript file of RELION 4."""
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # it is deprecated, and there is no other
            script = torch.jit.load(io.BytesIO(content), map_location="cpu").eval()

        def network(images: np.ndarray, features: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                scores = script(torch.from_numpy(images)[:, None], torch.from_numpy(features))
            return scores.numpy().reshape(len(images))

        network(np.zeros((1, 64, 64), np.float32), np.zeros((1, len(RELION.mean)), np.float32))
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise RankerError(
            f"this PyTorch ({torch.__version__}) cannot use the TorchScript file {source}: "
            f"{_first_line(error)}. Give {RELION5} instead"
        ) from error
    return Weights(source=source, digest=digest, constants=RELION, network=network)


def _first_line(error: Exception) -> str:
    """Return what torch says without its call stack."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
