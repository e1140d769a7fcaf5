"""Hard to easy on real people: every segmenter with and without a translator that saw phantoms alone.

    python -m benchmarks.real_hard_to_easy --data ../shared/data [--write]

Dixon fat images of two people with muscular dystrophy (`huashan` 001, heavily infiltrated, and 003, mildly), each leg
by itself. The translator is the one that ships for fat images, left to change the whole thigh, and kept to the
compartment (`within`); what needs annotated cases is fitted on healthy phantoms. The labels of the 11 muscles were made
by another network: every Dice here is agreement with that network.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.classical import as_muscle, put_between
from benchmarks.real_classical import leg_cases
from musclekit import io
from musclekit.errors import MusclekitError
from musclekit.image import Case, Contrast
from musclekit.labels import label_mapping, label_set
from musclekit.metrics import dice
from musclekit.phantom import Legs, make_case
from musclekit.registry import build
from musclekit.segmenters.tissue import TissueSegmenter
from musclekit.translators.safety import safety

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "results_translation.md"

PEOPLE = ("001", "003")

#: Every registered segmenter, and the label set that it is fitted on if it learns from annotated cases.
METHODS: Mapping[str, tuple[Mapping[str, Any], str | None]] = {
    "gmm, exact": ({"name": "gmm", "initial": "exact"}, None),
    "gmm, robust": ({"name": "gmm", "initial": "robust"}, None),
    "threshold": ({"name": "threshold"}, None),
    "tissue": ({"name": "tissue"}, None),
    "levelset, compartment taken as muscle": ({"name": "levelset"}, None),
    "graphcut, unary gmm": ({"name": "graphcut", "unary": {"name": "gmm"}}, None),
    "appearance": ({"name": "appearance"}, "muscle"),
    "spgc": ({"name": "spgc", "unary": {"name": "appearance"}}, "muscle"),
    "multiatlas": ({"name": "multiatlas"}, "thigh-11"),
}
#: What the images are shown as.
TRANSLATORS: Mapping[str, Mapping[str, Any]] = {
    "translated": {"checkpoint": "hard-to-easy-fat"},
    "within": {"checkpoint": "hard-to-easy-fat", "within": "tissue"},
}
#: Phantoms to be fitted on.
ANNOTATED, SEED = 6, 12


def annotated(set_name: str) -> list[Case]:
    """Return healthy phantoms, left and right legs in turn."""
    shape, fat = (8, 128, 128), (Contrast.FAT,)
    legs: tuple[Legs, ...] = ("left", "right")
    return [
        make_case(SEED + n, contrasts=fat, legs=legs[n % 2], shape=shape, reference=set_name) for n in range(ANNOTATED)
    ]


def dices(description: Mapping[str, Any], learns: str | None, cases: list[Case]) -> list[float]:
    """Dice of muscle in every slice; 0 in those of a leg in which the method fails."""
    found = []
    for case in cases:
        assert case.reference is not None
        truth = as_muscle(case.reference).mask()
        try:
            muscle = as_muscle(build(**description).fit(annotated(learns) if learns else []).segment(case.image)).mask()
        except MusclekitError as problem:
            print(f"{description['name']}, {case.id}: {problem}", flush=True)
            muscle = np.zeros_like(truth)
        found += [dice(muscle[z], truth[z]) for z in range(len(truth))]
    return found


def spread(found: list[float]) -> str:
    return f"{np.median(found):.2f} | {np.quantile(found, 0.25):.2f} to {np.quantile(found, 0.75):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data", help="folder of the scans")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.relative_to(HERE.parent)}")
    given = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    tissue = TissueSegmenter()
    translators = {name: build("hard-to-easy", **settings) for name, settings in TRANSLATORS.items()}
    shown = " | ".join(f"{name} | quartiles" for name in ("OI, median slice Dice", *translators))
    lines = [f"| person | method | {shown} |", "|---" * (4 + 2 * len(translators)) + "|"]
    checks: dict[tuple[str, str], dict[str, str]] = {}
    for person in PEOPLE:
        image = io.read(given.data / "huashan" / f"Thigh_{person}_fat.nii.gz", contrast=Contrast.FAT)
        labels = io.read_labels(given.data / "huashan" / f"Thigh_{person}_dseg.nii.gz", label_set("huashan-11"))
        labels = labels.mapped(label_mapping(labels.label_set, label_set("muscle")))
        arms = [leg_cases(f"huashan {person}", image, labels)]
        for arm, translator in translators.items():
            fake = translator.translate(image)
            arms.append(leg_cases(f"huashan {person}", image, labels, fake))
            kept = safety(image, fake, before=tissue.segment(image), after=tissue.segment(fake), monotone="darker")
            for check in kept.checks():
                if not np.isnan(check.value):
                    limit = "" if np.isnan(check.limit) else f"{'>=' if check.is_least else '<='} {check.limit:g}"
                    row = checks.setdefault((check.name, limit), {})
                    row[f"{person}, {arm}"] = f"{check.value:.3f}"
        for name, (description, learns) in METHODS.items():
            lines.append(
                f"| {person} | {name} | {' | '.join(spread(dices(description, learns, arm)) for arm in arms)} |"
            )
            print(lines[-1], flush=True)
    columns = [f"{person}, {arm}" for person in PEOPLE for arm in translators]
    told = [f"| check | expected | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    told += [
        f"| {name} | {limit} | {' | '.join(row.get(column, '') for column in columns)} |"
        for (name, limit), row in checks.items()
    ]
    for name, table in {"huashan": lines, "huashan checks": told}.items():
        print("\n".join(["", f"## {name}", "", *table]))
        if given.write:
            put_between(DOCUMENT, name, table)


if __name__ == "__main__":
    main()
