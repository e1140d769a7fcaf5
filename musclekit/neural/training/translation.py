"""Train two translators, there and back, on slices of two domains that are not paired (Zhu et al., CycleGAN).

The loop below is all there is to it: draw slices, translate them there and back, improve the generators with the
discriminators frozen, improve the discriminators on fakes of now and earlier, write down the losses, and after each
epoch write everything that is needed to go on.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from musclekit.errors import InputError, ParameterError
from musclekit.neural.checkpoint import save_checkpoint
from musclekit.neural.device import told_of_memory
from musclekit.neural.losses import adversarial
from musclekit.neural.objectives import TranslationLoss, generator_terms
from musclekit.neural.schedule import decay_factor
from musclekit.neural.slices import DomainSlices, augment, unpaired
from musclekit.neural.training.cards import card_of, turned
from musclekit.neural.training.log import collapse_warnings, not_finite, tensorboard, write_losses
from musclekit.neural.training.plan import TrainPlan
from musclekit.neural.training.ranks import Ranks, joined
from musclekit.neural.training.running import check_share, last_epoch, seeded_threads, set_rate, stopped
from musclekit.neural.training.sheet import sheet_of, write_sheet
from musclekit.neural.training.state import Networks, Training, begin, identity_of, load_state, save_state

__all__ = ["BACKWARD", "FORWARD", "LOSSES", "STATE", "Trained", "train_translator"]

#: Files of a training: the two translators, all that is needed to go on, and the losses.
FORWARD, BACKWARD, STATE, LOSSES = "forward.pt", "backward.pt", "state.pt", "losses.csv"
#: Folders: sheets of samples, and what TensorBoard reads.
SHEETS, EVENTS = "sheets", "tensorboard"
#: Slices of each domain on a sheet.
SAMPLES = 4
#: What helps where the device has too little memory; the last whole epoch is kept.
TOO_LARGE = "train with a smaller batch, smaller slices or a narrower generator, or in bfloat16"
#: How often in a training its progress is told, at most.
TOLD = 2000

Progress = Callable[[float, float, str], None]


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training gave.

    Parameters
    ----------
    forward, backward : Module
        The generators from source to target, and back.
    epochs_done : int
        Of those in the plan.
    rows : tuple of mapping
        Losses of each epoch, as in ``losses.csv``.
    warnings : tuple of str
        Signs that it went wrong.
    """

    forward: nn.Module
    backward: nn.Module
    epochs_done: int
    rows: tuple[Mapping[str, float], ...]
    warnings: tuple[str, ...]


def train_translator(
    plan: TrainPlan,
    source: DomainSlices,
    target: DomainSlices,
    out: Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    until: int | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a translator and the way back.

    Parameters
    ----------
    plan : TrainPlan
        What to train.
    source, target : DomainSlices
        What to train it on.
    out : Path
        Folder to write to. A training of the same plan and slices that stopped there is gone on with.
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
    Trained
        Written are ``forward.pt``, ``backward.pt``, ``state.pt``, ``losses.csv`` and ``sheets/``, anew after each
        epoch, each whole or not at all. On a processor a training that was interrupted gives the same bytes as one
        that was not.

    Raises
    ------
    ParameterError
        If the device is not there or its memory is too small, the batch cannot be shared out, or TensorBoard is asked
        for and not installed.
    InputError
        If the folder holds another training, or one without its state.
    FormatError
        If the state in the folder is damaged.
    TrainingError
        If a loss is no finite number; the last whole epoch is kept.
    OutputError
        If a file cannot be written; what stood there is as it was.
    """
    last = last_epoch(plan.schedule.epochs, until)
    with joined(device) as ranks, seeded_threads(plan.seed, threads), told_of_memory(ranks.device, TOO_LARGE):
        _check_share(plan, source, target, ranks)
        steps = _steps(plan, source, target, ranks)
        identity = identity_of(plan, source, target, ranks)
        training = begin(plan, ranks)
        if (out / STATE).exists():
            load_state(out / STATE, identity, training, ranks)
            _publish(plan, source, target, training, out, ranks)
        elif (out / FORWARD).exists():
            raise InputError(f"{out} holds {FORWARD} but no {STATE} to go on from; choose another folder")
        fast = training.networks.each(_compiled) if plan.compile else training.networks
        shared = fast.each(ranks.shared)
        with tensorboard(out / EVENTS, wanted=plan.tensorboard and ranks.is_first, done=training.epochs_done) as board:
            while training.epochs_done < last:
                epoch = training.epochs_done
                rate = plan.schedule.learning_rate * decay_factor(epoch, plan.schedule.constant, plan.schedule.decay)
                for optimiser in (training.generator_steps, training.critic_steps):
                    set_rate(optimiser, rate)
                sums: Counter[str] = Counter()
                batches = _batches(plan, source, target, training.rng, ranks)
                for step, (real_source, real_target) in enumerate(batches, start=1):
                    measured = _step(plan, training, fast, shared, real_source, real_target)
                    values = ranks.mean(torch.stack(list(measured.values()))).tolist()
                    losses = dict(zip(measured, values, strict=True))
                    if problem := not_finite(losses):
                        raise stopped(problem, epoch, step, out / STATE)
                    sums.update(losses)
                    if progress is not None and ranks.is_first:
                        done, total = epoch * steps + step, plan.schedule.epochs * steps
                        if done % max(1, total // TOLD) == 0:
                            progress(done, total, _line(plan, epoch, losses))
                row = _row(plan.loss, epoch, rate, {name: value / steps for name, value in sums.items()})
                training.rows.append(row)
                save_state(out / STATE, identity, training, ranks)
                _publish(plan, source, target, training, out, ranks)
                if ranks.is_first and plan.sheet_every and (epoch + 1) % plan.sheet_every == 0:
                    sheet = _sheet(training, source, target, ranks)
                    write_sheet(sheet, out / SHEETS / f"epoch_{epoch + 1:04d}.png")
                if board is not None:
                    for name, value in row.items():
                        board.add_scalar(name, value, epoch + 1)
                    board.flush()
        return Trained(
            training.networks.forward.eval(),
            training.networks.backward.eval(),
            training.epochs_done,
            tuple(training.rows),
            collapse_warnings(training.rows),
        )


def _step(
    plan: TrainPlan,
    training: Training,
    fast: Networks,
    shared: Networks,
    source: torch.Tensor,
    target: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Make one step, and return what was measured in it: every loss as it is, and how much fakes show.

    The networks are the same ones in three guises: as they were built, compiled, and with their gradients shared
    between processes. A step that trains a network has to use the last; frozen ones have no gradient to share.
    """
    loss = plan.loss
    with _precision(plan, source):
        # 1. There.
        fake_target, fake_source = shared.forward(source), shared.backward(target)
        # 2. And back, with the discriminators frozen: what the generators can do better.
        _require_grad(training.networks, False)
        terms = generator_terms(
            loss,
            forward=shared.forward,
            backward=shared.backward,
            source_critic=fast.source_critic,
            target_critic=fast.target_critic,
            source=source,
            target=target,
            fake_source=fake_source,
            fake_target=fake_target,
        )
    training.generator_steps.zero_grad()
    torch.autograd.backward(loss.total(terms))
    measured = {name: term.detach() for name, term in terms.items()}
    measured["gradient_norm"] = _gradient_norm(training.networks)
    training.generator_steps.step()
    _require_grad(training.networks, True)
    if loss.gan:
        # 3. The discriminators, on real slices and on fakes of now and earlier, which lead to no generator.
        with _precision(plan, source):
            judged = {
                "discriminator_source": (shared.source_critic, source, training.source_pool.query(fake_source)),
                "discriminator_target": (shared.target_critic, target, training.target_pool.query(fake_target)),
            }
            critics = {name: _judgement(*images, loss) for name, images in judged.items()}
        training.critic_steps.zero_grad()
        torch.autograd.backward(torch.stack(list(critics.values())).sum())
        training.critic_steps.step()
        measured |= {name: value.detach() for name, value in critics.items()}
    for name, fake in (("source", fake_source), ("target", fake_target)):
        measured[f"spread_{name}"] = fake.detach().float().std(dim=(1, 2, 3)).mean()
    return measured


def _gradient_norm(networks: Networks) -> torch.Tensor:
    """Length of the gradient of both generators together: one that grows tells of a training about to run off."""
    parameters = [*networks.forward.parameters(), *networks.backward.parameters()]
    return nn.utils.get_total_norm([weights.grad for weights in parameters if weights.grad is not None])


def _judgement(critic: nn.Module, real: torch.Tensor, fake: torch.Tensor, loss: TranslationLoss) -> torch.Tensor:
    return (adversarial(critic(real), True, loss.gan_kind) + adversarial(critic(fake), False, loss.gan_kind)) / 2


def _precision(plan: TrainPlan, images: torch.Tensor) -> torch.autocast:
    return torch.autocast(images.device.type, torch.bfloat16, enabled=plan.precision == "bfloat16")


def _require_grad(networks: Networks, wanted: bool) -> None:
    for critic in (networks.source_critic, networks.target_critic):
        critic.requires_grad_(wanted)


def _compiled(network: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.compile(network))


def _batches(
    plan: TrainPlan, source: DomainSlices, target: DomainSlices, rng: np.random.Generator, ranks: Ranks
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Draw an epoch. All processes draw the same, and each takes its share of every batch."""
    drawn = unpaired(source.slices, target.slices, plan.schedule.batch, rng)
    for real_source, real_target in itertools.islice(drawn, _steps(plan, source, target, ranks)):
        if plan.schedule.augment:
            real_source, real_target = augment(real_source, rng), augment(real_target, rng)
        yield _images(plan, real_source, ranks), _images(plan, real_target, ranks)


def _images(plan: TrainPlan, slices: NDArray[np.float32], ranks: Ranks) -> torch.Tensor:
    images = torch.from_numpy(slices[ranks.rank :: ranks.size, None])
    order = torch.channels_last if plan.channels_last else torch.contiguous_format
    return images.to(ranks.device).contiguous(memory_format=order)


def _steps(plan: TrainPlan, source: DomainSlices, target: DomainSlices, ranks: Ranks) -> int:
    """Return the steps of an epoch; what is left over at its end cannot always be shared between processes."""
    slices, batch = max(len(source.slices), len(target.slices)), plan.schedule.batch
    return slices // batch if ranks.size > 1 else -(-slices // batch)


def _check_share(plan: TrainPlan, source: DomainSlices, target: DomainSlices, ranks: Ranks) -> None:
    check_share(plan.schedule.batch, ranks)
    if not _steps(plan, source, target, ranks):
        raise ParameterError(f"there are fewer slices than the {plan.schedule.batch} of one batch")


def _line(plan: TrainPlan, epoch: int, losses: Mapping[str, float]) -> str:
    weights = plan.loss.weights
    generators = sum(weight * losses[name] for name, weight in weights.items())
    critics = sum(value for name, value in losses.items() if name.startswith("discriminator"))
    return f"epoch {epoch + 1}/{plan.schedule.epochs}: generators {generators:.3f}, discriminators {critics:.3f}"


def _row(loss: TranslationLoss, epoch: int, rate: float, means: Mapping[str, float]) -> dict[str, float]:
    """Return the line of an epoch: every term of the generators' loss as it is and weighted, then all the rest."""
    row: dict[str, float] = {"epoch": epoch + 1, "learning_rate": rate}
    for name, weight in loss.weights.items():
        row |= {name: means[name], f"weighted_{name}": weight * means[name]}
    row["generators"] = sum(row[f"weighted_{name}"] for name in loss.weights)
    return row | {name: value for name, value in means.items() if name not in loss.weights}


def _publish(
    plan: TrainPlan, source: DomainSlices, target: DomainSlices, training: Training, out: Path, ranks: Ranks
) -> None:
    """Write what follows from the state: both checkpoints and the table of losses."""
    if not ranks.is_first:
        return
    multiple = cast(int, training.networks.forward.multiple)
    card = card_of(plan, source, target, multiple=multiple, epochs_done=training.epochs_done)
    save_checkpoint(out / FORWARD, training.networks.forward, card)
    save_checkpoint(out / BACKWARD, training.networks.backward, turned(card, source, target))
    write_losses(training.rows, out / LOSSES)


@torch.no_grad()
def _sheet(training: Training, source: DomainSlices, target: DomainSlices, ranks: Ranks) -> NDArray[np.uint8]:
    """Draw some slices of both domains, the same ones every time, their fakes, and what comes back."""
    networks = training.networks
    columns: list[NDArray[np.float32]] = []
    for domain, there, back in (
        (source, networks.forward, networks.backward),
        (target, networks.backward, networks.forward),
    ):
        shown = np.linspace(0, len(domain.slices) - 1, SAMPLES).round().astype(int)
        real = torch.from_numpy(domain.slices[shown, None]).to(ranks.device)
        fake = there(real)
        columns += [images[:, 0].float().cpu().numpy() for images in (real, fake, back(fake))]
    return sheet_of(("source", "fake target", "back", "target", "fake source", "back"), columns)
