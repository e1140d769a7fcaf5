"""All that changes as a translator is trained, on disk and back: who stops after any epoch can go on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from musclekit.errors import FormatError
from musclekit.neural import networks as known
from musclekit.neural.checkpoint import read_tensors, write_tensors
from musclekit.neural.pool import ImagePool
from musclekit.neural.slices import DomainSlices
from musclekit.neural.training.plan import TrainPlan
from musclekit.neural.training.ranks import Ranks
from musclekit.neural.training.running import check_same_training

__all__ = ["Networks", "Training", "begin", "identity_of", "load_state", "save_state"]

#: Of the plan: what may change between two calls, since no number depends on it.
FREE = ("cases", "sheet_every", "tensorboard")


@dataclass(frozen=True)
class Networks:
    """The four networks.

    Parameters
    ----------
    forward, backward : Module
        From source to target, and back.
    source_critic, target_critic : Module
        Tell real slices of a domain from fakes of it.
    """

    forward: nn.Module
    backward: nn.Module
    source_critic: nn.Module
    target_critic: nn.Module

    def each(self, change: Callable[[nn.Module], nn.Module]) -> Networks:
        """Return all four, each changed alike."""
        return Networks(*map(change, vars(self).values()))


@dataclass(frozen=True, eq=False)
class Training:
    """All that changes from step to step.

    Parameters
    ----------
    networks : Networks
        On the device.
    generator_steps, critic_steps : Adam
        Of both generators, and of both discriminators.
    source_pool, target_pool : ImagePool
        Earlier fakes of either domain.
    rng : numpy.random.Generator
        What slices are drawn, shifted and mirrored by.
    rows : list of dict
        Losses of each epoch that is done.
    """

    networks: Networks
    generator_steps: torch.optim.Adam
    critic_steps: torch.optim.Adam
    source_pool: ImagePool
    target_pool: ImagePool
    rng: np.random.Generator
    rows: list[dict[str, float]]

    @property
    def epochs_done(self) -> int:
        """Whole epochs."""
        return len(self.rows)


def begin(plan: TrainPlan, ranks: Ranks) -> Training:
    """Return a training before its first epoch: all chance follows from the seed of the plan."""
    chance = torch.Generator().manual_seed(plan.seed)

    def network(description: Mapping[str, Any]) -> nn.Module:
        built = known.build(**description)
        known.initialise(built, chance)
        order = torch.channels_last if plan.channels_last else torch.contiguous_format
        # torch's own types leave this argument out.
        return cast(nn.Module, cast(Any, built).to(ranks.device, memory_format=order))

    networks = Networks(
        forward=network(plan.generator),
        backward=network(plan.generator),
        source_critic=network(plan.discriminator),
        target_critic=network(plan.discriminator),
    )

    def adam(*trained: nn.Module) -> torch.optim.Adam:
        parameters = [parameter for network in trained for parameter in network.parameters()]
        return torch.optim.Adam(parameters, lr=plan.schedule.learning_rate, betas=(0.5, 0.999))

    # Each process keeps fakes of its own, and draws among them by itself.
    seeds = np.random.SeedSequence([plan.seed, ranks.rank]).generate_state(2).tolist()
    return Training(
        networks,
        adam(networks.forward, networks.backward),
        adam(networks.source_critic, networks.target_critic),
        ImagePool(plan.schedule.pool, seed=seeds[0]),
        ImagePool(plan.schedule.pool, seed=seeds[1]),
        np.random.default_rng(plan.seed),
        [],
    )


def identity_of(plan: TrainPlan, source: DomainSlices, target: DomainSlices, ranks: Ranks) -> dict[str, Any]:
    """Return, as plain data, all that the result of a training depends on."""
    settings = {name: value for name, value in plan.as_data().items() if name not in FREE}
    scans = {
        f"slices of the {name}": hashlib.sha256(domain.slices.tobytes() + repr(domain.subjects).encode()).hexdigest()
        for name, domain in (("source", source), ("target", target))
    }
    identity = settings | scans | {"processes": ranks.size, "kind of device": ranks.device.type}
    return cast(dict[str, Any], json.loads(json.dumps(identity)))


def save_state(path: Path, identity: Mapping[str, Any], training: Training, ranks: Ranks) -> None:
    """Write all that is needed to go on; every process calls it, the first one writes.

    Raises
    ------
    OutputError
        If it cannot be written; the state that stood there is as it was.
    """
    pools = ranks.gathered([training.source_pool.state_dict(), training.target_pool.state_dict()])
    if not ranks.is_first:
        return
    about = {"identity": dict(identity), "rows": training.rows, "numpy": training.rng.bit_generator.state}
    write_tensors(
        path,
        {
            "about": json.dumps(about),
            "networks": {name: network.state_dict() for name, network in vars(training.networks).items()},
            "generator_steps": training.generator_steps.state_dict(),
            "critic_steps": training.critic_steps.state_dict(),
            "pools": pools,
            "torch": torch.get_rng_state(),
        },
    )


def load_state(path: Path, identity: Mapping[str, Any], training: Training, ranks: Ranks) -> None:
    """Bring a training to where it was when its state was written.

    Raises
    ------
    FormatError
        If the file is damaged or is no state of a training.
    InputError
        If it is that of another plan, other slices, or another number of processes; the message says what differs.
    """
    content = read_tensors(path)
    try:
        about = json.loads(content["about"])
        check_same_training(path, identity, about["identity"])
        for name, network in vars(training.networks).items():
            network.load_state_dict(content["networks"][name])
        training.generator_steps.load_state_dict(content["generator_steps"])
        training.critic_steps.load_state_dict(content["critic_steps"])
        source_pool, target_pool = content["pools"][ranks.rank]
        training.source_pool.load_state_dict(source_pool)
        training.target_pool.load_state_dict(target_pool)
        training.rng.bit_generator.state = about["numpy"]
        torch.set_rng_state(content["torch"])
        training.rows[:] = about["rows"]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as problem:
        raise FormatError(f"{path}: no state of a training, or a damaged one ({problem})") from problem
