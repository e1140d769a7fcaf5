"""How the segmenter of any contrast bears noise, bias, thick slices and infiltration, on phantoms whose truth is known.

    python -m benchmarks.thigh_sensitivity [--checkpoint FILE] [--people 3] [--write]

One thing is made worse at a time, on T1-weighted and on fat images; mean Dice of the eleven muscles over people, and
the share of the slices that are taken for a thigh.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.classical import put_between
from musclekit.image import Case, Contrast, LabelMap
from musclekit.labels import label_set
from musclekit.metrics import dice
from musclekit.phantom import Grade, Scanner, make_case
from musclekit.report.drawing import METHOD_COLORS, WIDTH_IN, style, svg_of
from musclekit.segmenters.thigh import WEIGHTS, ThighSegmenter

DOCUMENT = Path(__file__).parents[1] / "docs" / "results_any_contrast.md"
CURVES = DOCUMENT.parent / "figures" / "thigh_sensitivity.svg"
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


def table_of(found: pd.DataFrame) -> list[str]:
    """Return the table: means over people."""
    lines = ["| | level | " + " | ".join(CONTRASTS) + " | slices accepted |", "|---" * (3 + len(CONTRASTS)) + "|"]
    for (what, level), rows in found.groupby(["what", "level"], sort=False):
        means = rows.groupby("contrast", sort=False)["dice"].mean()
        shown = " | ".join(f"{means[contrast]:.3f}" for contrast in CONTRASTS)
        lines.append(f"| {what} | {level} | {shown} | {rows['accepted'].mean():.2f} |")
    return lines


def curves(found: pd.DataFrame) -> str:
    """Draw mean Dice against level, one panel for each thing that is made worse; an SVG document."""
    with style():
        canvas = Figure(figsize=(2 * WIDTH_IN, 2.6))
        panels = canvas.subplots(1, found["what"].nunique(), sharey=True)
        for ax, (what, rows) in zip(panels, found.groupby("what", sort=False), strict=True):
            for color, (contrast, of_contrast) in zip(
                METHOD_COLORS, rows.groupby("contrast", sort=False), strict=False
            ):
                means = of_contrast.groupby("level", sort=False)["dice"].mean()
                ax.plot(range(len(means)), means, marker="o", ms=4, color=color, label=str(contrast))
                ax.set_xticks(range(len(means)), list(means.index))
            ax.set_xlabel(str(what))
            ax.set_ylim(0, 1)
        panels[0].set_ylabel("mean Dice of 11 muscles")
        panels[0].legend(loc="lower left")
        canvas.tight_layout()
        return svg_of(canvas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=WEIGHTS)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"put table and curves into {DOCUMENT.name}")
    given = parser.parse_args()
    method = ThighSegmenter(checkpoint=given.checkpoint, labels="thigh-11-sided")
    rows = []
    for what, level, settings in levels():
        for person in range(given.people):
            case = make_case(700 + person, contrasts=CONTRASTS, reference="thigh-11-sided", **settings)
            for contrast in CONTRASTS:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    reached, accepted = scored(case, contrast, method)
                rows.append({"what": what, "level": level, "contrast": str(contrast), "dice": reached,
                             "accepted": accepted})  # fmt: skip
        print(what, level, flush=True)
    found = pd.DataFrame(rows)
    lines = table_of(found)
    print("\n".join(lines))
    if given.write:
        put_between(DOCUMENT, "sensitivity", lines)
        CURVES.write_text(curves(found), encoding="utf-8")


if __name__ == "__main__":
    main()
