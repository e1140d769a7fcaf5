"""All that changes as a segmenter is trained, on disk and back: who stops after any epoch can go on from there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from musclekit.errors import FormatError
from musclekit.neural.checkpoint import read_tensors, write_tensors
from musclekit.neural.labelled import LabelledScan
from musclekit.neural.training.ranks import Ranks
from musclekit.neural.training.running import check_same_training
from musclekit.neural.training.segmenter_plan import SegmenterPlan
from musclekit.neural.training.start import Start

__all__ = ["SegmenterTraining", "begin", "identity_of", "load_state", "save_state"]

#: Of the plan: what may change between two calls, since no number depends on it.
WITHOUT_EFFECT = ("cases", "start", "sheet_every", "name", "data", "licence", "limits")


@dataclass(eq=False)
class SegmenterTraining:
    """All that changes from step to step.

    Parameters
    ----------
    network : Module
        On the device.
    optimiser : Adam or AdamW
        Of its weights.
    rng : numpy.random.Generator
        What samples are drawn and moved by.
    rows : list of dict
        Losses of each epoch that is done.
    best : mapping of str to Tensor
        Weights of the epoch with the best score on the validation cases; empty where there are none.
    best_epoch : int
        Which one; 0 before the first.
    """

    network: nn.Module
    optimiser: torch.optim.Adam
    rng: np.random.Generator
    rows: list[dict[str, float]]
    best: dict[str, torch.Tensor]
    best_epoch: int = 0

    @property
    def epochs_done(self) -> int:
        """Whole epochs."""
        return len(self.rows)

    @property
    def kept(self) -> Mapping[str, torch.Tensor]:
        """The weights to keep: those of the best epoch, or without validation cases the last."""
        return self.best or self.network.state_dict()


def begin(plan: SegmenterPlan, start: Start | None, ranks: Ranks) -> SegmenterTraining:
    """Return a training before its first epoch: all chance follows from the seed of the plan."""
    # On the processor, whatever the device: the same first weights everywhere.
    torch.manual_seed(plan.seed)
    network = plan.build()
    if start is not None:
        start.take(network, plan.labels)
    network = network.to(ranks.device)
    if plan.channels_last:
        volumes = any(weights.ndim == 5 for weights in network.parameters())
        order = torch.channels_last_3d if volumes else torch.channels_last
        network = cast(nn.Module, cast(Any, network).to(memory_format=order))
    schedule = plan.schedule
    kind = torch.optim.AdamW if schedule.optimiser == "adamw" else torch.optim.Adam
    optimiser = kind(network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    # What is dropped is drawn by each process for itself.
    torch.manual_seed(int(np.random.SeedSequence([plan.seed, ranks.rank]).generate_state(1)[0]))
    # Who goes on from a training of the same seed is not to be shown the same samples once more.
    before = [] if start is None else [int(start.card.weights_sha256[:8], 16)]
    return SegmenterTraining(network, optimiser, np.random.default_rng([plan.seed, *before]), [], {})


def identity_of(
    plan: SegmenterPlan,
    start: Start | None,
    scans: Sequence[LabelledScan],
    validation: Sequence[LabelledScan],
    ranks: Ranks,
) -> dict[str, Any]:
    """Return, as plain data, all that the result of a training depends on."""
    settings = {name: value for name, value in plan.as_data().items() if name not in WITHOUT_EFFECT}
    seen = {"scans trained on": _digest(scans), "validation scans": _digest(validation)}
    if start is not None:
        # Whatever the file is called.
        seen["weights to start from"] = start.card.weights_sha256
    identity = settings | seen | {"processes": ranks.size, "kind of device": ranks.device.type}
    return cast(dict[str, Any], json.loads(json.dumps(identity)))


def _digest(scans: Sequence[LabelledScan]) -> str:
    digest = hashlib.sha256()
    for scan in scans:
        digest.update(repr((scan.id, scan.subject)).encode())
        for view in scan.views:
            digest.update(view.image.tobytes())
            digest.update(view.classes.tobytes())
    return digest.hexdigest()


def save_state(path: Path, identity: Mapping[str, Any], training: SegmenterTraining, ranks: Ranks) -> None:
    """Write all that is needed to go on; every process calls it, the first one writes.

    Raises
    ------
    OutputError
        If it cannot be written; the state that stood there is as it was.
    """
    cuda = ranks.device.type == "cuda"
    chance = ranks.gathered([torch.get_rng_state(), torch.cuda.get_rng_state(ranks.device) if cuda else None])
    if not ranks.is_first:
        return
    about = {
        "identity": dict(identity),
        "rows": training.rows,
        "numpy": training.rng.bit_generator.state,
        "best_epoch": training.best_epoch,
    }
    write_tensors(
        path,
        {
            "about": json.dumps(about),
            "network": training.network.state_dict(),
            "optimiser": training.optimiser.state_dict(),
            "best": dict(training.best),
            "chance": chance,
        },
    )


def load_state(path: Path, identity: Mapping[str, Any], training: SegmenterTraining, ranks: Ranks) -> None:
    """Bring a training to where it was when its state was written.

    Raises
    ------
    FormatError
        If the file is damaged or is no state of such a training.
    InputError
        If it is that of another plan, other scans, or another number of processes; the message says what differs.
    """
    content = read_tensors(path)
    try:
        about = json.loads(content["about"])
        check_same_training(path, identity, about["identity"])
        training.network.load_state_dict(content["network"])
        training.optimiser.load_state_dict(content["optimiser"])
        training.best = dict(content["best"])
        training.best_epoch = int(about["best_epoch"])
        training.rng.bit_generator.state = about["numpy"]
        processor, device = content["chance"][ranks.rank]
        torch.set_rng_state(processor)
        if device is not None:
            torch.cuda.set_rng_state(device, ranks.device)
        training.rows[:] = about["rows"]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as problem:
        raise FormatError(f"{path}: no state of a training, or a damaged one ({problem})") from problem
