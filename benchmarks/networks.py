"""Networks that segment, on processors: `segment_volume`'s ways beside a plain float32 loop, and what samples cost.

    python -m benchmarks.networks [--networks unet-2d,manet] [--sizes small,paper] [--parts speed,labels,samples]

The loop is what comes to mind first: one slice at a time, float32, memory laid out as torch does by itself. Seconds are
the best of several calls, by turns; memory is what a process takes at its peak above what it held before, and the
labels are those of a network that was trained here on phantoms. Nobody's labels depend on an untrained network.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.timing import Row, once, table
from musclekit.errors import ParameterError
from musclekit.image import Case, Contrast
from musclekit.labels import label_mapping, label_set
from musclekit.neural import networks
from musclekit.neural.augmentation import Augmentation
from musclekit.neural.cards import SegmenterCard
from musclekit.neural.labelled import labelled_views
from musclekit.neural.networks import size_needs
from musclekit.neural.onnx import OnnxNetwork, exported, session
from musclekit.neural.segmentation import Samples, class_probabilities, segment_volume
from musclekit.neural.training.segmentation import train_segmenter
from musclekit.neural.training.segmenter_plan import SegmenterPlan, SegmenterSchedule
from musclekit.neural.views import ViewSpec, unit_image, views_of
from musclekit.neural.windows import CT_WINDOW
from musclekit.phantom import make_case

THREADS = 2
#: Calls of each way; of a network at its paper's size fewer.
CALLS = {"small": 5, "paper": 2}
#: Slices that go through a network at once, as `segment_volume` does by itself.
AT_ONCE = 2
#: Parameters of the small ones; those at the size of their papers have none.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "unet-256": {"width": 8},
    "bayesian-unet": {"width": 8},
    "unet-2.5d": {"width": 8},
    "unet-2d": {"width": 8},
    "unet-3d": {"width": 8},
    "dense-unet": {"width": 16, "layers": 3, "growth": 8},
    "manet": {"width": 16, "decoder_width": 8},
    "segformer": {"width": 16, "decoder_width": 64},
    "fcn-8s": {"width": 16},
}
LABELS = label_set("thigh-11")
LEG, FEMUR = ViewSpec("leg", 0.8, (256, 256)), ViewSpec("femur", 2.5, (48, 96, 96))
#: Slices, rows and columns of the scan of both legs.
SHAPE, SPACING = (24, 256, 256), (5.0, 1.6, 1.6)
#: What the labels are judged by: a network for slices of half as many pixels, trained for so many epochs of 25 steps.
TRAINED, TRAINED_VIEW, EPOCHS = {"name": "unet-2d", "width": 8, "levels": 5}, ViewSpec("leg", 1.6, (128, 128)), 12
#: Numbers of samples.
FEW, MANY = 5, 20

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]
Work = Callable[[], object]


def parameters(name: str, size: str) -> Mapping[str, Any]:
    return SMALL[name] if size == "small" else {}


def case(seed: int, **changes: Any) -> Case:
    given: dict[str, Any] = {"shape": SHAPE, "spacing": SPACING, "contrasts": (Contrast.CT,), "reference": LABELS.name}
    return make_case(seed, **{**given, **changes})


def card_of(name: str, size: str, view: ViewSpec | None = None) -> SegmenterCard:
    given = {"in_channels": 1, "out_channels": len(LABELS) + 1, **parameters(name, size)}
    kind = view or (FEMUR if name in ("unet-2.5d", "unet-3d") else LEG)
    return SegmenterCard(name, {"name": name, "parameters": given}, LABELS, {Contrast.CT: CT_WINDOW}, kind)


def network_of(card: SegmenterCard) -> nn.Module:
    torch.manual_seed(0)
    network = networks.build(card.network["name"], **card.network["parameters"])
    return network.eval().requires_grad_(False)


def units(card: SegmenterCard, network: nn.Module, scan: Case) -> Floats:
    """What the network sees of a scan, as it takes it: slices (n, 1, rows, columns), or volumes."""
    scale = CT_WINDOW.scale_of(scan.image, None)
    views = views_of(scan.image, card.view, multiple=size_needs(network).multiple)
    seen = [unit_image(scan.image, view, scale) for view in views]
    if size_needs(network).dimensions == 3:
        return np.stack(seen)[:, None]
    return np.concatenate(seen)[:, None]


def plain(network: nn.Module, images: Floats) -> list[Floats]:
    with torch.no_grad():
        return [network(torch.from_numpy(image[None])).softmax(1).numpy() for image in images]


def peak_mb(work: Work) -> float:
    """Memory at the peak of a call above what was held before."""
    gc.collect()
    before = _held("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return (_held("VmHWM") - before) / 1e3


def _held(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(what)))


def by_turns(works: Sequence[Work], calls: int) -> list[float]:
    """Best time of each, after a call of each that does not count."""
    for work in works:
        work()
    return [float(least) for least in np.min([[timed(work) for work in works] for _ in range(calls)], axis=0)]


def timed(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ways(network: nn.Module) -> dict[str, tuple[nn.Module, dict[str, Any]]]:
    """The ways of `segment_volume`: a network, and what is said of the precision."""
    return {
        "channels-last float32": (network, {}),
        "bfloat16": (network, {"precision": "bfloat16"}),
        "ONNX Runtime": (OnnxNetwork(network), {}),
    }


def speed(name: str, size: str, threads: int) -> list[Row]:
    """Rows of one network: a batch of slices through the network alone, and a whole scan."""
    _prepare(threads)
    card, scan = card_of(name, size), case(5)
    network = network_of(card)
    images = units(card, network, scan)
    weights = sum(w.numel() for w in network.parameters()) / 1e6
    flat = size_needs(network).dimensions == 2
    some = images[:AT_ONCE] if flat else images[:1]
    what = f"{name} ({weights:.1f} M weights)"
    loop = partial(plain, network, some)
    found = []
    for way, (runner, said) in ways(network).items():
        ours = partial(class_probabilities, runner, some, **said)
        try:
            taken, slow = by_turns([ours, loop], CALLS[size])
        except ParameterError as problem:
            found.append(Row(f"{what}, {way}", float("nan"), None, "", None, str(problem)[:90]))
            continue
        shown = "x".join(map(str, some.shape[2:]))
        unit = f"slice {shown}" if flat else f"volume {shown}"
        per = len(some)
        at_most = None if way.startswith("channels") else slow / per / 2
        found.append(Row(f"{what}, {unit}, {way}", taken / per, at_most, "plain float32 loop", slow / per, ""))
    # Once each: the network has run before, and a volume is many slices.
    taken, slow = once(partial(segment_volume, network, card, scan.image)), once(partial(plain, network, images))
    size_of = "x".join(str(n) for n in SHAPE[::-1])
    note = "with body, resampling and pasting"
    return [*found, Row(f"{what}, CT {size_of}", taken, None, "plain loop, network alone", slow, note)]


def memory(name: str, size: str, ours: bool, threads: int) -> float:
    """Megabytes at the peak of segmenting a whole scan, above what was held; for a process that did nothing before."""
    _prepare(threads)
    card, scan = card_of(name, size), case(5)
    network = network_of(card)
    images = units(card, network, scan)
    plain(network, images[:1])  # libraries are loaded when first needed
    return peak_mb(partial(segment_volume, network, card, scan.image) if ours else partial(plain, network, images))


def with_memory(found: list[Row], name: str, size: str, threads: int) -> list[Row]:
    """Say of the row of a whole scan, the last one, what memory it takes, measured in new processes."""
    taken = [alone(memory, name, size, ours, threads=threads) for ours in (True, False)]
    last = found[-1]
    note = f"{last.note}; peak memory {taken[0]:.0f} and {taken[1]:.0f} MB"
    return [*found[:-1], replace(last, note=note)]


def alone(work: Callable[..., Any], *given: Any, threads: int) -> Any:
    """Work in a process of its own: what one leaves behind is not counted with the next."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(work, *given, threads=threads).result()


def trained(folder: Path, threads: int) -> tuple[nn.Module, SegmenterCard]:
    """A network that has learnt enough for its labels to mean something."""
    plan = SegmenterPlan(
        labels=LABELS,
        contrasts=(Contrast.CT,),
        network=TRAINED,
        view=TRAINED_VIEW,
        schedule=SegmenterSchedule(epochs=EPOCHS, steps=25, batch=4, learning_rate=3e-3),
        augmentation=Augmentation(rotation_deg=10, scale=0.1, shift=0.05),
        seed=1,
        sheet_every=0,
    )
    scans = labelled_views([case(seed) for seed in (11, 12, 13)], LABELS, plan.view, {Contrast.CT: CT_WINDOW})
    found = train_segmenter(plan, scans, folder, threads=threads)
    return found.network, found.card


class Int8(nn.Module):
    """A network of 8 bits, by ONNX Runtime; with slices to learn ranges from static ones, else those of each image."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...], threads: int, calibration: Floats | None) -> None:
        super().__init__()
        from onnxruntime import quantization

        needs = size_needs(network)
        self.dimensions, self.multiple, self.least = needs.dimensions, needs.multiple, needs.least
        with TemporaryDirectory() as folder:
            source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            source.write_bytes(exported(network, shape))
            quantization.quant_pre_process(source, source)
            if calibration is None:
                quantization.quantize_dynamic(source, target, weight_type=quantization.QuantType.QUInt8)
            else:
                slices = iter([{"images": image[None]} for image in calibration])
                quantization.quantize_static(source, target, Slices(slices), per_channel=True)
            self.session = session(target.read_bytes(), threads)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        given = images.contiguous().numpy()
        return torch.from_numpy(np.concatenate([self.session.run(None, {"images": one[None]})[0] for one in given]))


class Slices:
    """What the calibration asks for: one input after the other, None at the end."""

    def __init__(self, inputs: Iterator[dict[str, Floats]]) -> None:
        self.inputs = inputs

    def get_next(self) -> dict[str, Floats] | None:
        return next(self.inputs, None)


def dice(found: Labels, truth: Labels) -> NDArray[np.float64]:
    """Of each label that either shows."""
    pairs = [(found == n, truth == n) for n in range(1, len(LABELS) + 1)]
    return np.array([2 * np.sum(a & b) / (a.sum() + b.sum()) for a, b in pairs if a.any() or b.any()])


def labels(threads: int) -> list[Row]:
    """Rows of a trained network: do its labels stay the same? `peer` is the plain loop's time for the same slices."""
    _prepare(threads)
    with TemporaryDirectory() as folder:
        network, card = trained(Path(folder), threads)
    scan = case(6)
    assert scan.reference is not None
    truth = scan.reference.mapped(label_mapping(scan.reference.label_set, LABELS)).voxels
    ids = np.array([0, *(label.id for label in LABELS)])
    images, learnt = units(card, network, scan), units(card, network, case(11))
    plain_dice: float | None = None
    exact: Labels | None = None
    found = []
    given = ways(network) | {
        "ONNX Runtime, int8 static": (Int8(network, learnt[:1].shape, threads, learnt[::4]), {}),
        "ONNX Runtime, int8 dynamic": (Int8(network, learnt[:1].shape, threads, None), {}),
    }
    for way, (runner, said) in given.items():
        got = segment_volume(runner, card, scan.image, largest=False, **said).classes
        reached = float(dice(ids[got], truth).mean())
        exact, plain_dice = (got, reached) if exact is None or plain_dice is None else (exact, plain_dice)
        same = dice(got, exact)
        taken, slow = by_turns(
            [partial(class_probabilities, runner, images[:AT_ONCE], **said), partial(plain, network, images[:AT_ONCE])],
            CALLS["small"],
        )
        note = (
            f"Dice with float32 {same.mean():.4f}, least {same.min():.4f}; mean Dice with the truth {reached:.4f}, "
            f"float32 {plain_dice:.4f}"
        )
        at_most = None if way.startswith("channels") else slow / AT_ONCE / (3.5 if "int8" in way else 2)
        found.append(
            Row(
                f"trained unet-2d, slice 128x128, {way}",
                taken / AT_ONCE,
                at_most,
                "plain float32 loop",
                slow / AT_ONCE,
                note,
            )
        )
    return found


def stacked_samples(network: nn.Module, given: Floats, seeds: Sequence[int]) -> tuple[Floats, Floats]:
    kept = np.stack([class_probabilities(network, given, seed=seed) for seed in seeds])
    return kept.mean(0), kept.var(0).sum(0)


def samples(size: str, threads: int) -> list[Row]:
    """Rows of Monte Carlo dropout: what a further sample costs beside a pass without dropout, and the memory."""
    _prepare(threads)
    card = card_of("bayesian-unet", size)
    network = network_of(card)
    scan = case(7, shape=(8, *SHAPE[1:]), legs="left")
    images = units(card, network, scan)
    run: dict[int, Work] = {
        n: partial(segment_volume, network, card, scan.image, samples=Samples(n), side="left") for n in (FEW, MANY)
    }

    def passes() -> None:
        # As many slices at once: on a processor that changes more than dropout does.
        for _ in range(MANY - FEW):
            for first in range(0, len(images), AT_ONCE):
                class_probabilities(network, images[first : first + AT_ONCE])

    few, many, alone = by_turns([run[FEW], run[MANY], passes], CALLS[size])
    memory = [peak_mb(run[n]) for n in (FEW, MANY)]
    keeping = peak_mb(partial(stacked_samples, network, images, range(MANY)))
    what = f"bayesian-unet, width {card.network['parameters'].get('width', 32)}, {len(images)} slices 256x256"
    more = (many - few) / alone - 1
    note = (
        f"{100 * more:+.1f} % a sample; peak memory {memory[0]:.0f} MB of {FEW}, {memory[1]:.0f} MB of {MANY} samples; "
        f"stacked {keeping:.0f} MB of {MANY}"
    )
    of = f"{what}, {MANY} samples less {FEW}"
    return [Row(of, many - few, 1.05 * alone, f"{MANY - FEW} passes without dropout", alone, note)]


def _prepare(threads: int) -> None:
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore", UserWarning)


def instructions() -> str:
    """Those of this processor that shorter numbers gain from."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    asked = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
    return ", ".join(f"{name} {'yes' if name in flags else 'no'}" for name in asked)


def rows(
    names: Sequence[str] = tuple(SMALL),
    sizes: Sequence[str] = ("small", "paper"),
    parts: Sequence[str] = ("speed", "labels", "samples"),
    threads: int = THREADS,
) -> list[Row]:
    found: list[Row] = []
    if "speed" in parts:
        for name in names:
            for size in sizes:
                found += with_memory(alone(speed, name, size, threads=threads), name, size, threads)
    if "labels" in parts:
        found += alone(labels, threads=threads)
    if "samples" in parts:
        for size in sizes:
            found += alone(samples, size, threads=threads)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(SMALL))
    parser.add_argument("--sizes", default="small,paper")
    parser.add_argument("--parts", default="speed,labels,samples")
    parser.add_argument("--threads", type=int, default=THREADS)
    given = parser.parse_args()
    before = os.getloadavg()[0]
    found = rows(*(value.split(",") for value in (given.networks, given.sizes, given.parts)), given.threads)
    print(table(found))
    print(f"\ntorch {torch.__version__}, {given.threads} threads; {instructions()}; load {before:.1f} before it")


if __name__ == "__main__":
    main()
