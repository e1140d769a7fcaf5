"""Training of a segmenter, epoch by epoch, on one processor, one GPU or several; stopped at will and gone on with."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from musclekit.errors import InputError, LeakError
from musclekit.image import Contrast
from musclekit.metrics import dice_of_counts
from musclekit.neural import networks
from musclekit.neural.augmentation import Augmentation, augmented, exchanged_classes
from musclekit.neural.cards import SegmenterCard
from musclekit.neural.checkpoint import save_checkpoint
from musclekit.neural.device import told_of_memory
from musclekit.neural.drawing import Batch, Drawing, stacked
from musclekit.neural.labelled import UNLABELLED, LabelledScan, LabelledView, check_classes
from musclekit.neural.segmentation import class_probabilities
from musclekit.neural.synthesis import SyntheticDrawing, check_leg_classes
from musclekit.neural.training.log import not_finite, write_losses
from musclekit.neural.training.ranks import Ranks, joined
from musclekit.neural.training.running import check_share, last_epoch, seeded_threads, set_rate, stopped
from musclekit.neural.training.segmenter_plan import SegmenterPlan
from musclekit.neural.training.segmenter_state import SegmenterTraining, begin, identity_of, load_state, save_state
from musclekit.neural.training.sheet import sheet_of, write_sheet
from musclekit.neural.training.start import Start
from musclekit.neural.winners import highest_channel
from musclekit.phantom import LegPlanes

__all__ = ["LOSSES", "NETWORK", "SHEETS", "STATE", "TrainedSegmenter", "train_segmenter", "validation_dice"]

#: Files of a training: the checkpoint, all that is needed to go on, and the losses.
NETWORK, STATE, LOSSES = "network.pt", "state.pt", "losses.csv"
#: Folder of sheets of samples.
SHEETS = "sheets"
#: Slices on a sheet.
SAMPLES = 6
#: Slices that go through the network at once where nothing is learnt.
AT_ONCE = 2
#: What helps where there is too little memory; the last whole epoch is kept.
TOO_LARGE = "train with a smaller batch, smaller slices or blocks or a narrower network, or in bfloat16"
#: Slices across this axis are sagittal.
SAGITTAL = 2
#: How often in a training its progress is told, at most.
TOLD = 2000

Progress = Callable[[float, float, str], None]


@dataclass(frozen=True, eq=False)
class TrainedSegmenter:
    """What a training gave.

    Parameters
    ----------
    network : Module
        With the weights that are kept, set to evaluate.
    card : SegmenterCard
        As in the checkpoint.
    epochs_done : int
        Of those in the plan.
    best_epoch : int
        Whose weights are kept; the last one where there are no validation cases.
    stopped_early : bool
        Whether the score did not get better for as many epochs as the plan has patience for.
    rows : tuple of mapping
        Losses of each epoch, as in ``losses.csv``.
    """

    network: nn.Module
    card: SegmenterCard
    epochs_done: int
    best_epoch: int
    stopped_early: bool
    rows: tuple[Mapping[str, float], ...]


def train_segmenter(
    plan: SegmenterPlan,
    scans: Sequence[LabelledScan],
    out: Path,
    *,
    validation: Sequence[LabelledScan] = (),
    legs: Sequence[LegPlanes] = (),
    device: str = "cpu",
    threads: int | None = None,
    until: int | None = None,
    progress: Progress | None = None,
) -> TrainedSegmenter:
    """Train a segmenter.

    Parameters
    ----------
    plan : SegmenterPlan
        What to train.
    scans : sequence of LabelledScan
        What to train it on.
    out : Path
        Folder to write to. A training of the same plan and scans that stopped there is gone on with.
    validation : sequence of LabelledScan
        By what the best epoch is chosen; without any the last one is kept.
    legs : sequence of LegPlanes
        What slices are drawn from as it learns, where the plan synthesises them; the scans are then examples of them
        (`musclekit.neural.synthesis.synthetic_scan`).
    device : str
        Where to compute. Under ``torchrun`` ``"cuda"`` is one GPU for each process.
    threads : int, optional
        Of the processor; as many as torch takes if left out. Rounding, and so the last digits, depend on them.
    until : int, optional
        Epoch after which to stop for now; the last one of the plan if left out.
    progress : callable, optional
        Called with (steps done, all the steps, losses of the moment).

    Returns
    -------
    TrainedSegmenter
        Written are ``network.pt``, ``state.pt``, ``losses.csv`` and ``sheets/``, anew after each epoch, each whole or
        not at all. On a processor a training that was interrupted gives the same bytes as one that was not.

    Raises
    ------
    ParameterError
        If the device is not there or its memory is too small, or the batch cannot be shared out.
    LabelError
        If no scan shows a label of the plan.
    LeakError
        If a subject stands among those trained on and those of the validation, or the network to start from learnt
        from one of the validation.
    InputError
        If there is nothing to draw, or the folder holds another training, or one without its state.
    FormatError
        If the state in the folder is damaged.
    TrainingError
        If a loss is no finite number; the last whole epoch is kept.
    OutputError
        If a file cannot be written; what stood there is as it was.
    """
    last = last_epoch(plan.schedule.epochs, until)
    if plan.synthesis is None:
        check_classes(scans, plan.labels)
    else:
        check_leg_classes(legs, plan.labels)
    start = None if plan.start is None else Start(plan.start)
    _check_apart(scans, validation, start)
    with joined(device) as ranks, seeded_threads(plan.seed, threads), told_of_memory(ranks.device, TOO_LARGE):
        check_share(plan.schedule.batch, ranks)
        training = begin(plan, start, ranks)
        drawing = _drawing(plan, scans, legs, training.network, threads)
        steps = plan.schedule.steps or drawing.steps(plan.schedule.batch)
        identity = identity_of(plan, start, scans, validation, ranks)
        if (out / STATE).exists():
            load_state(out / STATE, identity, training, ranks)
            _publish(plan, start, scans, validation, training, out, ranks)
        elif (out / NETWORK).exists():
            raise InputError(f"{out} holds {NETWORK} but no {STATE} to go on from; choose another folder")
        while training.epochs_done < last and not _is_stopped(plan, training):
            row = _epoch(plan, training, drawing, steps, ranks, out, progress)
            ranks.average_buffers(training.network)
            if validation:
                training.network.eval()
                per_class = validation_dice(training.network, plan, validation, ranks)
                training.network.train()
                row["validation_dice"] = float(np.nanmean(per_class))
            before = [earlier["validation_dice"] for earlier in training.rows] if validation else []
            training.rows.append(row)
            if validation and row["validation_dice"] > max(before, default=-1):
                training.best_epoch = training.epochs_done
                training.best = {name: value.detach().clone() for name, value in training.network.state_dict().items()}
            save_state(out / STATE, identity, training, ranks)
            _publish(plan, start, scans, validation, training, out, ranks)
            if ranks.is_first and plan.sheet_every and training.epochs_done % plan.sheet_every == 0:
                sheet = _sheet(plan, training.network, scans, ranks)
                write_sheet(sheet, out / SHEETS / f"epoch_{training.epochs_done:04d}.png")
        training.network.load_state_dict(training.kept)
        return TrainedSegmenter(
            training.network.eval().requires_grad_(False),
            card_of(plan, start, scans, validation, training),
            training.epochs_done,
            training.best_epoch or training.epochs_done,
            _is_stopped(plan, training),
            tuple(training.rows),
        )


def _check_apart(scans: Sequence[LabelledScan], validation: Sequence[LabelledScan], start: Start | None) -> None:
    """Refuse to choose an epoch by subjects that were learnt from."""
    chosen_by = {scan.subject for scan in validation}
    shared = sorted({scan.subject for scan in scans} & chosen_by)
    if shared:
        raise LeakError(f"subject '{shared[0]}' stands among those trained on and in the validation")
    before = sorted(chosen_by & set(start.card.training_subjects)) if start is not None else []
    if before:
        raise LeakError(f"the network to start from learnt from subject '{before[0]}', who is in the validation")


def _drawing(
    plan: SegmenterPlan,
    scans: Sequence[LabelledScan],
    legs: Sequence[LegPlanes],
    network: nn.Module,
    threads: int | None,
) -> Drawing | SyntheticDrawing:
    if plan.synthesis is not None:
        return SyntheticDrawing(legs, plan.labels, plan.synthesis, threads or os.cpu_count() or 1)
    return Drawing(
        [view for scan in scans for view in scan.views],
        plan.sample_kind(network),
        plan.sample_size(network),
        plan.context,
        network.distance if isinstance(network, networks.PlaneUNets) else 1,
    )


def _is_stopped(plan: SegmenterPlan, training: SegmenterTraining) -> bool:
    waited = training.epochs_done - training.best_epoch
    return bool(plan.schedule.patience and training.best_epoch and waited >= plan.schedule.patience)


def _epoch(
    plan: SegmenterPlan,
    training: SegmenterTraining,
    drawing: Drawing | SyntheticDrawing,
    steps: int,
    ranks: Ranks,
    out: Path,
    progress: Progress | None,
) -> dict[str, float]:
    """Train for an epoch, and return its row."""
    epoch = training.epochs_done
    exchange = exchanged_classes([(label.name, label.side) for label in plan.labels])
    sums: Counter[str] = Counter()
    rate = 0.0
    training.network.train()
    for step, drawn in enumerate(drawing.epoch(steps, plan.schedule.batch, training.rng), start=1):
        rate = plan.schedule.learning_rate * plan.schedule.factor(epoch * steps + step - 1, steps)
        set_rate(training.optimiser, rate)
        moved = [
            augmented(*pair, _augmentation(plan, axis), training.rng, exchange=exchange)
            for axis, pair in enumerate(drawn)
        ]
        measured = _step(plan, training, [_share(plan, *pair, ranks) for pair in moved], ranks)
        values = ranks.mean(torch.stack(list(measured.values()))).tolist()
        losses = dict(zip(measured, values, strict=True))
        if problem := not_finite(losses):
            raise stopped(problem, epoch, step, out / STATE)
        sums.update(losses)
        if progress is not None and ranks.is_first:
            done, total = epoch * steps + step, plan.schedule.epochs * steps
            if done % max(1, total // TOLD) == 0:
                loss = sum(weight * losses[name] for name, weight in plan.loss.weights.items())
                progress(done, total, f"epoch {epoch + 1}/{plan.schedule.epochs}: loss {loss:.3f}")
    means = {name: value / steps for name, value in sums.items()}
    weighted = {f"weighted_{name}": weight * means[name] for name, weight in plan.loss.weights.items()}
    return {"epoch": epoch + 1, "learning_rate": rate, **means, **weighted, "loss": sum(weighted.values())}


def _augmentation(plan: SegmenterPlan, axis: int) -> Augmentation:
    """Return how samples of a plane are moved: a sagittal one shows front and back, not left and right."""
    return replace(plan.augmentation, flip=False) if axis == SAGITTAL else plan.augmentation


def _share(
    plan: SegmenterPlan, images: torch.Tensor, classes: torch.Tensor, ranks: Ranks
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return this process's share of a batch, on its device."""
    last = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
    order = last if plan.channels_last else torch.contiguous_format
    mine = slice(ranks.rank, None, ranks.size)
    return images[mine].to(ranks.device).contiguous(memory_format=order), classes[mine].to(ranks.device)


def _step(plan: SegmenterPlan, training: SegmenterTraining, batch: Batch, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Make one step, and return what was measured in it; of several planes, the mean."""
    network = training.network
    found: list[dict[str, torch.Tensor]] = []
    for axis, (images, classes) in enumerate(batch):
        with torch.autocast(ranks.device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            logits = network.plane_logits(images, axis) if isinstance(network, networks.PlaneUNets) else network(images)
        found.append(plan.loss.terms(logits, classes))
    training.optimiser.zero_grad()
    # The planes' networks share nothing: each gets the gradient of its own loss.
    torch.autograd.backward(torch.stack([plan.loss.total(terms) for terms in found]).sum())
    ranks.average_gradients(network)
    norm = nn.utils.get_total_norm([weights.grad for weights in network.parameters() if weights.grad is not None])
    training.optimiser.step()
    measured = {name: torch.stack([terms[name].detach() for terms in found]).mean() for name in found[0]}
    return measured | {"gradient_norm": norm}


def predicted_classes(
    network: nn.Module, plan: SegmenterPlan, view: LabelledView, device: torch.device | str
) -> NDArray[np.uint8]:
    """Return the class of each voxel of a view, on the view's grid."""
    unit = view.image.astype(np.float32)
    if networks.size_needs(network).dimensions == 3:
        found = class_probabilities(network, unit[None, None], device=device, precision=plan.precision)
        return highest_channel(found)
    answers = []
    for first in range(0, len(unit), AT_ONCE):
        slices = np.stack([stacked(unit, z, plan.context) for z in range(first, min(first + AT_ONCE, len(unit)))])
        found = class_probabilities(network, slices, device=device, precision=plan.precision)
        answers.append(highest_channel(found))
    return np.concatenate(answers)


def validation_dice(
    network: nn.Module, plan: SegmenterPlan, scans: Sequence[LabelledScan], ranks: Ranks
) -> NDArray[np.float64]:
    """Return the mean Dice of each label over scans, on the network's own grid and without any clean-up.

    Several processes share the scans out, and all of them return the same: whether a training is stopped early must
    not depend on who asks.

    Parameters
    ----------
    network : Module
        Set to evaluate.
    plan : SegmenterPlan
        Of its training.
    scans : sequence of LabelledScan
        With labels.
    ranks : Ranks
        The processes that train together.

    Returns
    -------
    ndarray of shape (labels,)
        NaN for a label that neither the network nor the scans show.
    """
    mine = [_scan_dice(network, plan, scan, ranks.device) for scan in scans[ranks.rank :: ranks.size]]
    # Process after process; the mean does not ask for their order.
    table = np.concatenate([np.reshape(part, (-1, len(plan.labels))) for part in ranks.gathered(mine)])
    shown = np.isfinite(table)
    means = np.full(len(plan.labels), math.nan)
    np.divide(np.where(shown, table, 0).sum(axis=0), shown.sum(axis=0), out=means, where=shown.any(axis=0))
    return means


def _scan_dice(
    network: nn.Module, plan: SegmenterPlan, scan: LabelledScan, device: torch.device
) -> NDArray[np.float64]:
    n = len(plan.labels) + 1
    common, found, wanted = (np.zeros(n, dtype=np.int64) for _ in range(3))
    for view in scan.views:
        known = view.classes != UNLABELLED
        predicted, truth = predicted_classes(network, plan, view, device)[known], view.classes[known]
        found += np.bincount(predicted, minlength=n)
        wanted += np.bincount(truth, minlength=n)
        common += np.bincount(truth[truth == predicted], minlength=n)
    return dice_of_counts(common, found, wanted)[1:]


def card_of(
    plan: SegmenterPlan,
    start: Start | None,
    scans: Sequence[LabelledScan],
    validation: Sequence[LabelledScan],
    training: SegmenterTraining,
) -> SegmenterCard:
    """Return the card of the weights that are kept."""
    best = training.best_epoch
    before = None if start is None else start.card
    return SegmenterCard(
        name=plan.name or str(plan.network["name"]),
        network={"name": plan.network["name"], "parameters": plan.network_parameters},
        label_set=plan.labels,
        windows=plan.windows,
        view=plan.view,
        context=plan.context,
        loss=asdict(plan.loss) | {"class_weights": list(plan.loss.class_weights)},
        schedule={
            **asdict(plan.schedule),
            "epochs_done": training.epochs_done,
            "best_epoch": best or training.epochs_done,
            "precision": plan.precision,
        },
        augmentation=asdict(plan.augmentation),
        seed=plan.seed,
        start={} if before is None else {"name": before.name, "weights_sha256": before.weights_sha256},
        training_subjects=tuple(
            dict.fromkeys([*(before.training_subjects if before else ()), *(scan.subject for scan in scans)])
        ),
        validation_subjects=tuple(
            dict.fromkeys([*(before.validation_subjects if before else ()), *(scan.subject for scan in validation)])
        ),
        data=plan.data,
        licence=plan.licence,
        # Slices that are synthesised have grey values of every kind.
        deciles={}
        if plan.synthesis is not None
        else {contrast: _deciles(scans, contrast) for contrast in {scan.contrast for scan in scans}},
        scores={"validation_dice": training.rows[best - 1]["validation_dice"]} if best else {},
        limits=plan.limits,
    )


def _deciles(scans: Sequence[LabelledScan], contrast: Contrast) -> tuple[tuple[float, ...], tuple[float, ...]]:
    found = np.array([scan.deciles for scan in scans if scan.contrast is contrast])
    return tuple(found.min(axis=0).tolist()), tuple(found.max(axis=0).tolist())


def _publish(
    plan: SegmenterPlan,
    start: Start | None,
    scans: Sequence[LabelledScan],
    validation: Sequence[LabelledScan],
    training: SegmenterTraining,
    out: Path,
    ranks: Ranks,
) -> None:
    """Write what follows from the state: the checkpoint and the table of losses."""
    if not ranks.is_first:
        return
    save_checkpoint(out / NETWORK, training.kept, card_of(plan, start, scans, validation, training))
    write_losses(training.rows, out / LOSSES)


@torch.no_grad()
def _sheet(plan: SegmenterPlan, network: nn.Module, scans: Sequence[LabelledScan], ranks: Ranks) -> NDArray[np.uint8]:
    """Draw some slices, the same ones every time, with their labels and what the network gives."""
    network.eval()
    every = [view for scan in scans for view in scan.views]
    views = [every[n] for n in np.linspace(0, len(every) - 1, SAMPLES).round().astype(int)]
    columns: list[list[NDArray[np.float32]]] = [[], [], []]
    rows, width = (max(view.image.shape[axis] for view in views) for axis in (1, 2))
    for view in views:
        z = int(np.argmax(((view.classes > 0) & (view.classes != UNLABELLED)).sum(axis=(1, 2))))
        known = np.where(view.classes[z] == UNLABELLED, 0, view.classes[z])
        found = predicted_classes(network, plan, view, ranks.device)[z]
        for column, plane in zip(columns, (view.image[z], _grey(known, plan), _grey(found, plan)), strict=True):
            shown = np.full((rows, width), -1, dtype=np.float32)
            shown[: plane.shape[0], : plane.shape[1]] = plane
            column.append(shown)
    network.train()
    return sheet_of(("image", "labels", "network"), [np.stack(column) for column in columns])


def _grey(classes: NDArray[np.uint8], plan: SegmenterPlan) -> NDArray[np.float32]:
    grey: NDArray[np.float32] = (2 * classes.astype(np.float32) / len(plan.labels) - 1).astype(np.float32)
    return grey
