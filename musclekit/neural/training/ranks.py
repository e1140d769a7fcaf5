"""One process, or several under ``torchrun`` that train the same networks, each on its share of every batch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from musclekit.neural.device import resolve_device

__all__ = ["Ranks", "is_first_process", "joined"]

#: How often this process has joined others.
_JOINED = itertools.count()


@dataclass(frozen=True)
class Ranks:
    """The processes that train together, seen from one of them.

    Parameters
    ----------
    rank : int
        The number of this one; the first writes the files.
    size : int
        How many there are.
    device : torch.device
        Where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def shared(self, network: nn.Module) -> nn.Module:
        """Return a network whose gradients become the mean of those of all processes."""
        if self.size == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=ids)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
            values = values / self.size
        return values

    def average_gradients(self, network: nn.Module) -> None:
        """Make the gradient of every weight the mean of those of all processes, after the step back."""
        if self.size == 1:
            return
        for weights in network.parameters():
            if weights.grad is not None:
                dist.all_reduce(weights.grad)
                weights.grad /= self.size

    def average_buffers(self, network: nn.Module) -> None:
        """Make what a network counts by itself, as batch norms do, the mean over all processes."""
        if self.size == 1:
            return
        for counted in network.buffers():
            if counted.is_floating_point():
                dist.all_reduce(counted)
                counted /= self.size

    def gathered(self, value: Any) -> list[Any]:
        """Return what each process gave, in order; to every one of them."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found


def is_first_process() -> bool:
    """Whether this process is the one that speaks and writes: the first that ``torchrun`` started, or the only one."""
    return not dist.is_torchelastic_launched() or os.environ["RANK"] == "0"


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started; without it there is this one alone.

    Parameters
    ----------
    device : str
        Where to compute. Under ``torchrun`` ``"cuda"`` is one GPU for each process of a machine.

    Raises
    ------
    ParameterError
        If the device is not there.
    """
    if not dist.is_torchelastic_launched():
        yield Ranks(0, 1, resolve_device(device))
        return
    where = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    # Processes that train fold after fold join again and again: each time under a name of its own, or they would wait
    # for each other's earlier words.
    store, rank, size = next(rendezvous("env://"))
    named = PrefixStore(f"musclekit-{next(_JOINED)}", store)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo", store=named, rank=rank, world_size=size)
    try:
        yield Ranks(rank, size, where)
        # The first one writes files that the others may ask for next.
        dist.barrier()
    finally:
        dist.destroy_process_group()
