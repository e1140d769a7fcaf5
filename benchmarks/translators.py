"""Training and translating, slices a second: beside a plain float32 loop of the same networks, in the same run.

The loop is what a careful user writes from the papers: one slice at a time, float32, no autocast, no freezing of the
discriminators. ``python -m benchmarks.translators --device cuda`` does it on a GPU.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.timing import Row, seconds, table
from musclekit.image import Contrast, Domain
from musclekit.neural import networks
from musclekit.neural.cards import TranslatorCard
from musclekit.neural.inference import translate_volume
from musclekit.neural.objectives import TranslationLoss
from musclekit.neural.slices import DomainSlices, SliceSpec, domain_slices
from musclekit.neural.training.plan import TrainPlan
from musclekit.neural.training.translation import train_translator
from musclekit.neural.windows import MR_WINDOW, Scale
from musclekit.phantom import make_case, make_cohort

#: Name -> width, blocks, pixels, millimetres, steps to measure.
SIZES: Mapping[str, tuple[int, int, int, float, int]] = {
    "width 16, 6 blocks, 128 px": (16, 6, 128, 1.5625, 16),
    "width 64, 9 blocks, 256 px": (64, 9, 256, 0.78125, 2),
}
#: Planes of the volume that is translated.
PLANES = 16


def data(pixels: int, spacing: float, n: int) -> tuple[DomainSlices, DomainSlices]:
    """Some slices of two domains."""
    domains = []
    for grade, name in (("severe", "hard"), ("healthy", "easy")):
        cases = list(make_cohort(2, seed=1, grades=(grade,), shape=(n, 128, 128), legs="left"))
        spec = SliceSpec(pixels, spacing)
        domain = domain_slices(cases, MR_WINDOW, spec, name=name, per_leg=True, contrast=Contrast.T1W)
        domains.append(replace(domain, slices=domain.slices[:n], subjects=domain.subjects[:n]))
    return domains[0], domains[1]


def plan_of(width: int, blocks: int, pixels: int, spacing: float, **settings: Any) -> TrainPlan:
    schedule = {"constant": 1, "decay": 0, "batch": 1}
    return TrainPlan.from_data(
        {
            "kind": "train",
            "source": {"contrast": "t1w", "name": "hard"},
            "target": {"contrast": "t1w", "name": "easy"},
            "slices": {"size": pixels, "spacing_mm": spacing, "per_leg": True},
            "generator": {"width": width, "blocks": blocks},
            "discriminator": {"width": 2 * width if width < 64 else 64},
            "schedule": schedule,
            "sheet_every": 0,
            **settings,
        }
    )


def training_seconds(plan: TrainPlan, source: DomainSlices, target: DomainSlices, device: str) -> float:
    """Seconds a slice, after the first step."""
    moments: list[float] = []

    def told(*_: object) -> None:
        if device != "cpu":
            torch.cuda.synchronize()
        moments.append(time.perf_counter())

    with TemporaryDirectory() as folder:
        train_translator(plan, source, target, Path(folder), device=device, progress=told)
    return float(np.median(np.diff(moments))) / plan.schedule.batch


def plain_training_seconds(plan: TrainPlan, source: DomainSlices, target: DomainSlices, device: str) -> float:
    """The same step as a plain loop: CycleGAN with the loss of Gadermayr et al., float32, every gradient kept."""
    there, back = (networks.build(**plan.generator).to(device) for _ in range(2))
    critics = [networks.build(**plan.discriminator).to(device) for _ in range(2)]
    generators = torch.optim.Adam([*there.parameters(), *back.parameters()], 2e-4, (0.5, 0.999))
    judges = torch.optim.Adam([*critics[0].parameters(), *critics[1].parameters()], 2e-4, (0.5, 0.999))
    loss: TranslationLoss = plan.loss
    moments = []
    for planes in zip(source.slices, target.slices, strict=True):
        a, b = (torch.from_numpy(plane[None, None]).to(device) for plane in planes)
        fake_b, fake_a = there(a), back(b)
        total = (critics[1](fake_b) - 1).square().mean() + (critics[0](fake_a) - 1).square().mean()
        total = total + loss.cycle * ((back(fake_b) - a).abs().mean() + (there(fake_a) - b).abs().mean())
        total = total + loss.identity * ((there(b) - b).abs().mean() + (back(a) - a).abs().mean())
        total = total + loss.relu * ((fake_b - a).relu().mean() + (b - fake_a).relu().mean())
        generators.zero_grad()
        total.backward()
        generators.step()
        judged = [
            ((critic(real) - 1).square().mean() + critic(fake.detach()).square().mean()) / 2
            for critic, real, fake in zip(critics, (a, b), (fake_a, fake_b), strict=True)
        ]
        judges.zero_grad()
        sum(judged[1:], judged[0]).backward()
        judges.step()
        if device != "cpu":
            torch.cuda.synchronize()
        moments.append(time.perf_counter())
    return float(np.median(np.diff(moments)))


def card_of(width: int, blocks: int, pixels: int, spacing: float) -> TranslatorCard:
    return TranslatorCard(
        name="benchmark",
        network={"name": "resnet-generator", "parameters": {"width": width, "blocks": blocks}},
        source=Domain(Contrast.T1W, "hard"),
        target=Domain(Contrast.T1W, "easy"),
        windows=(MR_WINDOW, MR_WINDOW),
        target_scale=Scale(0, 1),
        spacing_mm=spacing,
        size=pixels,
        multiple=4,
        per_leg=True,
        loss={},
        schedule={},
        seed=0,
        training_subjects=((), ()),
        data="",
        licence="",
    )


def plain_translation(network: nn.Module, slices: np.ndarray, device: str) -> None:
    """One slice at a time, the gradients' bookkeeping left on, as it is when nobody thinks of it."""
    for plane in slices:
        network(torch.from_numpy(plane[None, None]).to(device)).detach().cpu().numpy()


def measured(name: str, device: str) -> list[Row]:
    """Rows of one size; its process does nothing else, so that its peak memory is that of this size."""
    width, blocks, pixels, spacing, steps = SIZES[name]
    source, target = data(pixels, spacing, steps + 1)
    plain = plain_training_seconds(plan_of(width, blocks, pixels, spacing), source, target, device)
    found = []
    for precision in ("float32", "bfloat16"):
        plan = plan_of(width, blocks, pixels, spacing, precision=precision)
        taken = training_seconds(plan, source, target, device)
        found.append(
            Row(f"train {name}, {precision}", taken, None, "plain float32 loop", plain, f"{1 / taken:.2g} slices/s")
        )
    network = networks.build("resnet-generator", width=width, blocks=blocks).to(device).eval()
    image = make_case(3, shape=(PLANES, 128, 128), legs="left", grade="severe").image
    card = card_of(width, blocks, pixels, spacing)
    planes = np.resize(source.slices, (PLANES, pixels, pixels))
    peer = seconds(lambda: plain_translation(network, planes, device), repeat=3) / PLANES
    whole = seconds(lambda: translate_volume(network, card, image, device=device), repeat=3) / PLANES
    note = f"{1 / whole:.2g} slices/s, body, resampling and pasting included; peak memory of all {peak_memory(device)}"
    found.append(Row(f"translate a slice, {name}", whole, None, "plain float32 loop, network alone", peer, note))
    return found


def peak_memory(device: str) -> str:
    """Most that this process held at once."""
    main = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB"
    return main if device == "cpu" else f"{main}, of the GPU {torch.cuda.max_memory_allocated() / 1e9:.1f} GB"


def rows(device: str = "cpu") -> list[Row]:
    found = []
    for name in SIZES:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            found += alone.submit(measured, name, device).result()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    given = parser.parse_args()
    print(table(rows(given.device)))
    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
