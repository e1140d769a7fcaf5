"""Learning epoch by epoch, whatever is learnt: stopped at will, gone on with, and the same bytes either way.

A `Learner` knows its networks and how to make one step. All that happens between the steps is here.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from musclekit.errors import FormatError, InputError
from musclekit.neural.checkpoint import read_tensors, write_tensors
from musclekit.neural.device import told_of_memory
from musclekit.neural.pool import ImagePool
from musclekit.neural.training.log import not_finite, write_losses
from musclekit.neural.training.running import check_same_training, last_epoch, seeded_threads, stopped

__all__ = ["LOSSES", "STATE", "Draw", "Learner", "Learnt", "learn"]

#: All that is needed to go on, and the losses of every epoch.
STATE, LOSSES = "state.pt", "losses.csv"
#: The network that segments, among those of a learner.
SEGMENTER = "segmenter"
#: What helps where there is too little memory; the last whole epoch is kept.
TOO_LARGE = "set a smaller batch, narrower networks or smaller slices in the plan"
#: How often in a training its progress is told, at most.
TOLD = 2000

Progress = Callable[[float, float, str], None]
Batch = tuple[torch.Tensor, ...]


class Draw(Protocol):
    """Where batches come from."""

    @property
    def steps(self) -> int:
        """Batches of an epoch."""

    def epoch(self, rng: np.random.Generator) -> Iterator[tuple[NDArray[Any], ...]]:
        """Draw an epoch: images of float32, shape (n, rows, columns), and classes of uint8, in the learner's order."""


class Learner(ABC):
    """Networks that learn together.

    Parameters
    ----------
    modules : ModuleDict
        All that has weights; the one that segments is called ``segmenter``.
    optimisers : mapping of str to Optimizer
        Of these weights.
    pools : mapping of str to ImagePool
        Earlier fakes.
    """

    def __init__(
        self,
        modules: nn.ModuleDict,
        optimisers: Mapping[str, torch.optim.Optimizer],
        pools: Mapping[str, ImagePool] | None = None,
    ) -> None:
        self.modules = modules
        self.optimisers = dict(optimisers)
        self.pools = dict(pools or {})

    @property
    def segmenter(self) -> nn.Module:
        """The network that segments."""
        return self.modules[SEGMENTER]

    @property
    @abstractmethod
    def weights(self) -> Mapping[str, float]:
        """Weight of each term of the loss, by its name in what `step` returns."""

    @abstractmethod
    def set_rates(self, done: float, epochs: int) -> float:
        """Set the learning rates for what lies ahead, and return that of the segmenter.

        Parameters
        ----------
        done : float
            Epochs that are done, with the share of the one under way.
        epochs : int
            Of the whole training.
        """

    @abstractmethod
    def step(self, *batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Make one step, and return what was measured in it: every term as it is, and whatever else tells of it."""

    def state(self) -> dict[str, Any]:
        """Return all that changes from step to step, as tensors and plain data; `load` undoes it."""
        return {
            "modules": self.modules.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "pools": {name: pool.state_dict() for name, pool in self.pools.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Bring everything to where it was when `state` was called."""
        self.modules.load_state_dict(state["modules"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        for name, pool in self.pools.items():
            pool.load_state_dict(state["pools"][name])


@dataclass(eq=False)
class Learnt:
    """How far a training has come.

    Parameters
    ----------
    rows : list of dict
        Losses of each epoch that is done.
    best : mapping of str to Tensor
        Weights of the segmenter after the epoch with the best score; empty where nothing is scored.
    best_epoch : int
        Which one; 0 where nothing is scored.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    best_epoch: int = 0

    @property
    def epochs_done(self) -> int:
        """Whole epochs."""
        return len(self.rows)


def learn(
    learner: Learner,
    draw: Draw,
    out: Path,
    *,
    identity: Mapping[str, Any],
    epochs: int,
    seed: int,
    score: Callable[[nn.Module], float] | None = None,
    publish: Callable[[Learnt], None],
    threads: int | None = None,
    until: int | None = None,
    progress: Progress | None = None,
) -> Learnt:
    """Let a learner learn, and keep all that is needed to go on.

    Parameters
    ----------
    learner : Learner
        On its device, as its seed made it.
    draw : Draw
        Where batches come from.
    out : Path
        Folder of ``state.pt`` and ``losses.csv``, each written anew after every epoch, whole or not at all.
    identity : mapping
        All that the result depends on, as plain data: a training of another one is not gone on with.
    epochs : int
        How many there are.
    seed : int
        Of all that is drawn.
    score : callable, optional
        Scores the segmenter, set to evaluate, after each epoch: the more the better. The weights of the best epoch
        are kept beside the last.
    publish : callable
        Called after each epoch, and when a training is gone on with.
    threads : int, optional
        Of the processor; as many as torch takes if left out. Rounding depends on them.
    until : int, optional
        Epoch to stop after for now.
    progress : callable, optional
        Called with (steps done, all the steps, losses of the moment).

    Raises
    ------
    InputError
        If the folder holds another training.
    FormatError
        If the state in the folder is damaged.
    TrainingError
        If a loss is no finite number; the last whole epoch is kept.
    ParameterError
        If the memory of the device is too small.
    OutputError
        If a file cannot be written; what stood there is as it was.
    """
    last = last_epoch(epochs, until)
    device = next(learner.modules.parameters()).device
    # What numbers depend on, beyond the plan.
    identity = json.loads(json.dumps({**identity, "kind of device": device.type}))
    rng = np.random.default_rng(seed)
    learnt = Learnt()
    with seeded_threads(seed, threads), told_of_memory(device, TOO_LARGE):
        if (out / STATE).exists():
            _load(out / STATE, identity, learner, learnt, rng)
            publish(learnt)
        while learnt.epochs_done < last:
            row = _epoch(learner, draw, learnt, epochs, rng, out, progress)
            if score is not None:
                learner.segmenter.eval()
                row["validation_dice"] = score(learner.segmenter)
                learner.segmenter.train()
                if row["validation_dice"] > max((earlier["validation_dice"] for earlier in learnt.rows), default=-1):
                    learnt.best_epoch = learnt.epochs_done + 1
                    learnt.best = {name: value.clone() for name, value in learner.segmenter.state_dict().items()}
            learnt.rows.append(row)
            _save(out / STATE, identity, learner, learnt, rng)
            write_losses(learnt.rows, out / LOSSES)
            publish(learnt)
    return learnt


def _epoch(
    learner: Learner,
    draw: Draw,
    learnt: Learnt,
    epochs: int,
    rng: np.random.Generator,
    out: Path,
    progress: Progress | None,
) -> dict[str, float]:
    """Learn for an epoch, and return its row: every term as it is and weighted, then all the rest."""
    epoch, steps = learnt.epochs_done, draw.steps
    device = next(learner.modules.parameters()).device
    sums: Counter[str] = Counter()
    rate = 0.0
    learner.modules.train()
    for step, drawn in enumerate(draw.epoch(rng), start=1):
        rate = learner.set_rates(epoch + (step - 1) / steps, epochs)
        measured = learner.step(*(_tensor(values, device) for values in drawn))
        losses = dict(zip(measured, torch.stack([value.float() for value in measured.values()]).tolist(), strict=True))
        if problem := not_finite(losses):
            raise stopped(problem, epoch, step, out / STATE)
        sums.update(losses)
        if progress is not None:
            done, total = epoch * steps + step, epochs * steps
            if done % max(1, total // TOLD) == 0:
                loss = sum(weight * losses[name] for name, weight in learner.weights.items())
                progress(done, total, f"epoch {epoch + 1}/{epochs}: loss {loss:.3f}")
    means = {name: value / steps for name, value in sums.items()}
    row: dict[str, float] = {"epoch": epoch + 1, "learning_rate": rate}
    for name, weight in learner.weights.items():
        row |= {name: means[name], f"weighted_{name}": weight * means[name]}
    row["loss"] = sum(row[f"weighted_{name}"] for name in learner.weights)
    return row | {name: value for name, value in means.items() if name not in learner.weights}


def _tensor(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Images get a channel, classes become numbers that a loss takes."""
    if values.dtype == np.uint8:
        return torch.from_numpy(values.astype(np.int64)).to(device)
    return torch.from_numpy(values.astype(np.float32)[:, None]).to(device)


def _save(path: Path, identity: Mapping[str, Any], learner: Learner, learnt: Learnt, rng: np.random.Generator) -> None:
    about = {
        "identity": dict(identity),
        "rows": learnt.rows,
        "best_epoch": learnt.best_epoch,
        "numpy": rng.bit_generator.state,
    }
    write_tensors(
        path, {"about": json.dumps(about), **learner.state(), "best": learnt.best, "torch": torch.get_rng_state()}
    )


def _load(path: Path, identity: Mapping[str, Any], learner: Learner, learnt: Learnt, rng: np.random.Generator) -> None:
    content = read_tensors(path)
    try:
        about = json.loads(content["about"])
        check_same_training(path, identity, about["identity"])
        learner.load(content)
        learnt.rows[:] = about["rows"]
        learnt.best, learnt.best_epoch = dict(content["best"]), about["best_epoch"]
        rng.bit_generator.state = about["numpy"]
        torch.set_rng_state(content["torch"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as problem:
        raise FormatError(f"{path}: no state of a training, or a damaged one ({problem})") from problem
