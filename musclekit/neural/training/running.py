"""What every training asks of the processor and of the processes that share it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from musclekit.checks import check_number
from musclekit.errors import InputError, ParameterError, TrainingError
from musclekit.neural.training.ranks import Ranks

__all__ = ["check_same_training", "check_share", "last_epoch", "seeded_threads", "set_rate", "stopped"]


@contextmanager
def seeded_threads(seed: int, threads: int | None) -> Iterator[None]:
    """Seed torch and set its threads; both are as they were afterwards.

    Raises
    ------
    ParameterError
        If the threads are not a whole number of at least 1.
    """
    before = torch.get_num_threads()
    check_number("threads", before if threads is None else threads, least=1, whole=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            torch.set_num_threads(before if threads is None else threads)
            yield
        finally:
            torch.set_num_threads(before)


def last_epoch(epochs: int, until: int | None) -> int:
    """Return the epoch to stop after: the last one of the plan, or an earlier one that was asked for.

    Raises
    ------
    ParameterError
        If it is not a whole number of at least 1.
    """
    if until is None:
        return epochs
    check_number("until", until, least=1, whole=True)
    return min(until, epochs)


def check_share(batch: int, ranks: Ranks) -> None:
    """Refuse a batch that cannot be shared out between the processes that train together.

    Raises
    ------
    ParameterError
        If it is no multiple of their number.
    """
    if batch % ranks.size:
        raise ParameterError(
            f"a batch of {batch} cannot be shared between {ranks.size} processes: make it a multiple of {ranks.size}"
        )


def check_same_training(state: Path, identity: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Refuse to go on from the state of another training.

    Parameters
    ----------
    state : Path
        The file.
    identity, other : mapping
        All that the result depends on, as plain data: of this training, and of that in the file.

    Raises
    ------
    InputError
        If they differ; the message says in what.
    """
    differing = [name for name in {**identity, **other} if identity.get(name) != other.get(name)]
    if differing:
        raise InputError(
            f"{state.parent} holds another training (it differs in: {', '.join(differing)}); results are never mixed: "
            "choose another folder"
        )


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all the weights of an optimiser."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def stopped(problem: str, epochs_done: int, step: int, state: Path) -> TrainingError:
    """Return the error of a training that cannot go on.

    Parameters
    ----------
    problem : str
        What is wrong.
    epochs_done : int
        Whole epochs before it.
    step : int
        Of the epoch, counted from 1.
    state : Path
        Where the last whole epoch is kept, if there is one.
    """
    kept = f"{state} holds epoch {epochs_done}" if epochs_done else "no epoch was finished"
    return TrainingError(
        f"the training was stopped in epoch {epochs_done + 1}, step {step}: {problem}; {kept}. Lower the learning "
        "rate, or train in float32, in another folder"
    )
