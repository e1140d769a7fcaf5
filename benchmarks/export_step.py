"""Probabilities of a network to labels on a scan twice as fine, 12 classes: beside torch in one go, and nnU-Net's way.

Seconds are the best of several calls, by turns, on two threads; memory is what a process of its own takes at its peak
above what it holds before the call, the result included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.transform import resize
from torch.nn.functional import interpolate

from benchmarks.timing import Row, ct, once, table
from musclekit.anatomy import Frame, resample_frame
from musclekit.image import Grid
from musclekit.labels import label_mapping, label_set
from musclekit.neural.resampling import most_probable

CLASSES = 12
SHAPE = (160, 320, 320)
SPACING = (2.0, 1.0, 1.0)
THREADS = 2
CALLS = 4
#: What a process does to tell its peak: it keeps to itself what the system tells of children.
PROGRAM = """
import sys
import numpy as np
from benchmarks import export_step
export_step.prepare()
channels = np.load(sys.argv[2])
work = getattr(export_step, sys.argv[1])
work(channels[:, :4, :16, :16], (8, 32, 32))  # what a first call loads is not counted
with open("/proc/self/clear_refs", "w") as refs:
    refs.write("5")
def held(what):
    with open("/proc/self/status") as status:
        return int(next(line.split()[1] for line in status if line.startswith(what)))
before = held("VmRSS")
work(channels, export_step.SHAPE)
print(held("VmHWM") - before)
"""

Labels = NDArray[np.uint8]
Channels = NDArray[np.float32]


def prepare() -> None:
    torch.set_num_threads(THREADS)


def frame(shape: tuple[int, int, int]) -> Frame:
    return resample_frame(Grid.from_spacing(shape, SPACING), [2 * step for step in SPACING])


def ours(channels: Channels, shape: tuple[int, int, int]) -> Labels:
    return most_probable(channels, frame(shape))


def one_go(channels: Channels, shape: tuple[int, int, int]) -> Labels:
    known = torch.from_numpy(channels)[None]
    fine = interpolate(known, size=shape, mode="trilinear", align_corners=False)[0]
    return fine.argmax(0).to(torch.uint8).numpy()


def nnunet(channels: Channels, shape: tuple[int, int, int]) -> Labels:
    """As `resample_data_or_seg_to_shape` does for order 1: scikit-image class by class, all kept, then argmax."""
    fine = np.zeros((len(channels), *shape), dtype=np.float32)
    for to, of in zip(fine, channels, strict=True):
        to[...] = resize(of.astype(float), shape, order=1, mode="edge", anti_aliasing=False)
    return fine.argmax(axis=0).astype(np.uint8)


PEERS: dict[str, Callable[[Channels, tuple[int, int, int]], Labels]] = {
    "torch interpolate and argmax in one go": one_go,
    "nnU-Net's default: scikit-image class by class": nnunet,
}


@cache
def thigh() -> Channels:
    """Probabilities as a network gives them: 11 muscles of one thigh, unsure at their borders, a little noisy."""
    _, labels = ct(80)
    muscles = labels.mapped(label_mapping(labels.label_set, label_set("thigh-11"))).voxels[:, 96:416:2, :320:2]
    scores = np.stack([ndimage.gaussian_filter((muscles == c).astype(np.float32), 1.0) for c in range(CLASSES)])
    noise = np.random.default_rng(0).standard_normal(scores.shape, dtype=np.float32)
    return _softmax(np.log(scores + np.float32(1e-3)) + np.float32(0.3) * noise)


def random() -> Channels:
    """The hardest case for ours: every voxel random by itself."""
    return _softmax(np.random.default_rng(1).standard_normal(thigh().shape, dtype=np.float32))


def _softmax(scores: Channels) -> Channels:
    odds = np.exp(scores - scores.max(axis=0))
    return odds / odds.sum(axis=0)


def peak_mb(name: str, channels: Channels) -> float:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "channels.npy"
        np.save(file, channels)
        command = [sys.executable, "-c", PROGRAM, name, str(file)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1e3


def rows() -> list[Row]:
    before = torch.get_num_threads()
    prepare()
    found = []
    for kind, channels, names in (("a thigh", thigh(), tuple(PEERS)), ("random numbers", random(), tuple(PEERS)[:1])):
        labels, peak = ours(channels, SHAPE), peak_mb("ours", channels)
        size = "x".join(str(n) for n in channels.shape[:0:-1])
        for name in names:
            peer = PEERS[name]
            differ = int((peer(channels, SHAPE) != labels).sum())
            # By turns, so that neither has the quieter machine.
            turns = [[once(lambda w=work, c=channels: w(c, SHAPE)) for work in (ours, peer)] for _ in range(CALLS)]
            taken, slow = np.min(turns, axis=0).tolist()
            note = (
                f"{THREADS} threads; memory {peak:.0f} and {peak_mb(peer.__name__, channels):.0f} MB; "
                f"{differ} of {labels.size / 1e6:.1f} M labels differ"
            )
            found.append(
                Row(f"{CLASSES} classes {size} to labels twice as fine, {kind}", taken, None, name, slow, note)
            )
    torch.set_num_threads(before)
    return found


if __name__ == "__main__":
    print(table(rows()))
