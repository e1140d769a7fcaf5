"""How the segmenter of any contrast bears noise, bias, thick slices and infiltration, on phantoms whose truth is known.

    python -m benchmarks.thigh_sensitivity [--checkpoint FILE] [--people 3]

One thing is made worse at a time, on T1-weighted and on fat images; mean Dice of the eleven muscles over people, and
the share of the slices that are taken for a thigh.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from musclekit.image import Case, Contrast, LabelMap
from musclekit.labels import label_set
from musclekit.metrics import dice
from musclekit.phantom import Grade, Scanner, make_case
from musclekit.segmenters.thigh import WEIGHTS, ThighSegmenter

CONTRASTS = (Contrast.T1W, Contrast.FAT)
#: Fat has a signal of about 900.
NOISE = (0.0, 20.0, 50.0, 100.0, 150.0)
BIAS = (0.0, 0.1, 0.2, 0.4, 0.6)
THICKNESS_MM = (1.5, 6.0, 12.0, 26.0)
GRADES: tuple[Grade, ...] = ("healthy", "minor", "moderate", "severe")
LENGTH_MM = 200.0
SHAPE, SPACING = (20, 176, 256), (10.0, 1.6, 1.6)


def levels() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield what is made worse, how far, and how a phantom is made so."""
    base: dict[str, Any] = {"shape": SHAPE, "spacing": SPACING}
    for noise in NOISE:
        yield "noise, share of fat", f"{noise / 900:.2f}", {**base, "scanner": Scanner(noise=noise)}
    for bias in BIAS:
        yield "bias, sd of the log gain", f"{bias:.1f}", {**base, "scanner": Scanner(noise=10.0, bias=bias)}
    for thick in THICKNESS_MM:
        shape = (round(LENGTH_MM / thick), *SHAPE[1:])
        yield "thickness, mm", f"{thick:g}", {"shape": shape, "spacing": (thick, *SPACING[1:])}
    for grade in GRADES:
        yield "infiltration", grade, {**base, "grade": grade}


def scored(case: Case, contrast: Contrast, method: ThighSegmenter) -> tuple[float, float]:
    """Return the mean Dice of the eleven muscles, and the share of the slices that are accepted."""
    found = method.assess(case.images[contrast])
    truth = cast(LabelMap, case.reference)
    each = [dice(found.labels.mask(muscle.name), truth.mask(muscle.name)) for muscle in label_set("thigh-11")]
    return float(np.mean(each)), float(found.accepted.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=WEIGHTS)
    parser.add_argument("--people", type=int, default=3)
    given = parser.parse_args()
    method = ThighSegmenter(checkpoint=given.checkpoint, labels="thigh-11-sided")
    print("| | level | " + " | ".join(str(contrast) for contrast in CONTRASTS) + " | slices accepted |")
    print("|---" * (3 + len(CONTRASTS)) + "|")
    for what, level, settings in levels():
        reached = np.zeros((given.people, len(CONTRASTS), 2))
        for person in range(given.people):
            case = make_case(700 + person, contrasts=CONTRASTS, reference="thigh-11-sided", **settings)
            for n, contrast in enumerate(CONTRASTS):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    reached[person, n] = scored(case, contrast, method)
        shown = " | ".join(f"{value:.3f}" for value in reached[:, :, 0].mean(axis=0))
        print(f"| {what} | {level} | {shown} | {reached[:, :, 1].mean():.2f} |", flush=True)


if __name__ == "__main__":
    main()
