"""Training of the network on the CPU: resumable after each epoch, the same for the same seed.

Source: class-ranker.md sections 5.4 and 9.5.
"""

import hashlib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algorithms.formats.atomic import atomic_write
from algorithms.ranker.architecture import checked
from algorithms.ranker.learning.augmentation import Gain, augmented
from algorithms.ranker.learning.data import Inputs
from algorithms.ranker.learning.recipe import Recipe
from algorithms.ranker.network import Head, RankerNetwork
from algorithms.ranker.types import RankerError

# An epoch's number, how many there are, and its errors: `train`, `validation`.
Told = Callable[[int, int, dict[str, float]], None]
_CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network.

    Parameters
    ----------
    arrays
        Parameters by name.
    history
        Errors after each epoch.
    epoch
        Whose weights they are, from 1.
    """

    arrays: dict[str, np.ndarray]
    history: list[dict[str, float]] = field(default_factory=list)
    epoch: int = 0


def train(
    inputs: Inputs,
    recipe: Recipe,
    validation: Inputs | None = None,
    *,
    state: Path | None = None,
    start: Mapping[str, np.ndarray] | None = None,
    told: Told | None = None,
) -> Trained:
    """Train a network.

    Parameters
    ----------
    inputs
        Of the training jobs.
    recipe
        How.
    validation
        Of the validation jobs, normalised by the same constants; only looked at.
    state
        File that keeps the state after each epoch; a training that was killed goes on from it. It
        is refused when it is of another recipe or other data.
    start
        Parameters to begin with; random ones otherwise.
    told
        Called after each epoch.
    """
    if not len(inputs):
        raise RankerError("there is no class with a target score to train on")
    run = _Run(inputs, recipe, validation, start)
    if state is not None and state.exists():
        run.restore(state)
    while run.done < recipe.epochs:
        entry = run.epoch()
        if state is not None:
            run.save(state)
        if told is not None:
            told(run.done, recipe.epochs, entry)
    return run.result()


def predicted(arrays: Mapping[str, np.ndarray], inputs: Inputs, head: Head = "both") -> np.ndarray:
    """Return scores `[n]` of a trained network, float64."""
    network = _network(arrays)
    return _scores(network, inputs, head).astype(np.float64)


class _Run:
    """The state of a training between epochs."""

    def __init__(
        self,
        inputs: Inputs,
        recipe: Recipe,
        validation: Inputs | None,
        start: Mapping[str, np.ndarray] | None,
    ):
        self._recipe, self._inputs, self._validation = recipe, inputs, validation
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self._network = RankerNetwork(recipe.widths, recipe.dropout)
        if start is not None:
            checked(start, "weights to start from")
            self._network.load_state_dict(_tensors(start), strict=False)  # spare heads may lack
        # Channels last is a sixth faster on CPUs.
        self._network = self._network.to(memory_format=torch.channels_last)  # pyright: ignore
        kind = torch.optim.AdamW if recipe.decoupled else torch.optim.Adam
        self._optimiser = kind(
            self._network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay
        )
        self._images = torch.from_numpy(inputs.images)[:, None]
        self._z = torch.from_numpy(inputs.vectors)
        self._y = torch.from_numpy(inputs.y)
        self._gain = Gain(torch.from_numpy(inputs.follows_gain()), torch.from_numpy(inputs.pivot()))
        self._mean = {name: v.clone() for name, v in self._network.state_dict().items()}
        self._best: dict[str, Any] = {"error": math.inf, "epoch": 0, "arrays": {}}
        self._history: list[dict[str, float]] = []
        self._identity = _identity(inputs, recipe, validation, start)

    @property
    def done(self) -> int:
        """Epochs that are done."""
        return len(self._history)

    def epoch(self) -> dict[str, float]:
        """Run one epoch and return its errors."""
        recipe, n = self._recipe, len(self._y)
        # Seeds follow from the epoch: a training that goes on draws what it would have drawn.
        seed = recipe.seed * 100_003 + self.done
        random = torch.Generator().manual_seed(seed)
        order = torch.randperm(n, generator=random)
        starts = range(0, n, recipe.batch)
        total = 0.0
        self._network.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for step, start in enumerate(starts):
                count = self.done * len(starts) + step
                self._set_rate(count / (recipe.epochs * len(starts)))
                chosen = order[start : start + recipe.batch]
                total += self._step(chosen, random) * len(chosen)
                self._follow(count)
        entry = {"train": total / n}
        if self._validation is not None and len(self._validation):
            entry["validation"] = self._validated(self._validation)
        self._history.append(entry)
        self._keep(entry)
        return entry

    def _step(self, chosen: Tensor, random: torch.Generator) -> float:
        recipe = self._recipe
        images, z = augmented(self._images[chosen], self._z[chosen], recipe, self._gain, random)
        z = _clipped(z, self._inputs)
        self._optimiser.zero_grad()
        scores = self._network(images.contiguous(memory_format=torch.channels_last), z, recipe.head)
        loss = ((scores - self._y[chosen]) ** 2).mean()
        loss.backward()
        self._optimiser.step()
        return float(loss.detach())

    def _follow(self, step: int) -> None:
        """Let the running mean of the weights follow; fast at the beginning."""
        share = min(self._recipe.average, (1.0 + step) / (10.0 + step))
        with torch.no_grad():
            for name, value in self._network.state_dict().items():
                self._mean[name].lerp_(value, 1.0 - share)

    def _set_rate(self, share: float) -> None:
        rate = self._recipe.rate
        if self._recipe.cosine:
            rate *= 0.5 * (1.0 + math.cos(math.pi * share))
        for group in self._optimiser.param_groups:
            group["lr"] = rate

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: v.contiguous().numpy().copy() for name, v in self._mean.items()}

    def _validated(self, held: Inputs) -> float:
        scores = predicted(self._arrays(), held, self._recipe.head)
        return float(((scores - held.y) ** 2).mean())

    def _keep(self, entry: dict[str, float]) -> None:
        error = entry.get("validation", math.inf)
        always = not self._recipe.keeps_best or "validation" not in entry
        # An error that is no number is never smaller.
        if always or error < self._best["error"] or not self._best["arrays"]:
            self._best = {
                "error": math.inf if math.isnan(error) else error,
                "epoch": self.done,
                "arrays": {name: v.clone() for name, v in self._mean.items()},
            }

    def result(self) -> Trained:
        """Return the weights that the recipe asks for."""
        return Trained(
            arrays={name: v.contiguous().numpy() for name, v in self._best["arrays"].items()},
            history=self._history,
            epoch=self._best["epoch"],
        )

    def save(self, path: Path) -> None:
        """Keep the state after an epoch."""
        content = io.BytesIO()
        torch.save(
            {
                "identity": self._identity,
                "network": self._network.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "mean": self._mean,
                "best": self._best,
                "history": self._history,
            },
            content,
        )
        atomic_write(path, content.getvalue(), durable=False)

    def restore(self, path: Path) -> None:
        """Go on from a state."""
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
            identity = found["identity"]
        except (UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
            raise RankerError(f"{path} is no state of a training: remove it") from error
        if identity != self._identity:
            raise RankerError(
                f"{path} is of a training with another recipe or other data: remove it, or give "
                "another folder"
            )
        self._network.load_state_dict(found["network"])
        self._optimiser.load_state_dict(found["optimiser"])
        self._mean, self._best = found["mean"], found["best"]
        self._history = found["history"]


def _identity(
    inputs: Inputs,
    recipe: Recipe,
    validation: Inputs | None,
    start: Mapping[str, np.ndarray] | None,
) -> str:
    total = hashlib.sha256(recipe.dumps().encode())
    given = [inputs] if validation is None else [inputs, validation]
    arrays = [array for one in given for array in (one.y, one.vectors, one.images)]
    for array in (*arrays, *(start or {}).values()):
        total.update(f"{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def _network(arrays: Mapping[str, np.ndarray]) -> RankerNetwork:
    network = RankerNetwork(checked(arrays, "trained weights"))
    network.load_state_dict(_tensors(arrays), strict=False)  # spare heads may lack
    network.eval()
    return network.to(memory_format=torch.channels_last)  # pyright: ignore


def _scores(network: RankerNetwork, inputs: Inputs, head: Head) -> np.ndarray:
    parts = [np.zeros(0, np.float32)]
    with torch.no_grad():
        for start in range(0, len(inputs), _CHUNK):
            images = torch.from_numpy(inputs.images[start : start + _CHUNK])[:, None]
            z = _clipped(torch.from_numpy(inputs.vectors[start : start + _CHUNK]), inputs)
            images = images.contiguous(memory_format=torch.channels_last)
            parts.append(network(images, z, head).numpy())
    return np.concatenate(parts)


def _clipped(z: Tensor, inputs: Inputs) -> Tensor:
    limit = inputs.constants.clip
    return z if limit is None else z.clamp(-limit, limit)
