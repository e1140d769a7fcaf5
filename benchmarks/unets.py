"""The U-Net family on phantoms: tables and figures of docs/results_unets.md.

    python -m benchmarks.unets -o runs/unets [--tier cpu] [--seeds 1] [--arms unet-2d,unet-2.5d] [--jobs 2] [--write]

Every network is trained alike (people, pixel size, loss, optimiser, augmentation, time) on CT of phantoms, and scored
on people whom it has not seen: of the same scanner, and of another one. What was trained or scored before is not done
again, so that it can be done in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.classical import put_between
from benchmarks.toml import toml_of
from benchmarks.unets_tables import figures, over_seeds, overview, pairs, per_muscle, with_means, write_figures
from musclekit.evaluation import evaluate, read_scores, write_scores
from musclekit.io import read_manifest, write_manifest
from musclekit.neural.device import resolve_device
from musclekit.neural.training.segmenter_plan import SegmenterPlan
from musclekit.phantom import Scanner
from musclekit.protocols import Segmenter
from musclekit.registry import build
from musclekit.workflows import write_phantoms
from musclekit.workflows.cases import open_cases
from musclekit.workflows.train_segmenter import train_segmenter_on_manifest

DOCUMENT = Path(__file__).parents[1] / "docs" / "results_unets.md"
LABELS = "thigh-11"
GRADES = ["healthy", "minor", "moderate", "severe"]
#: The study's people, by turns of all grades; the first to learn from, the last to be scored.
INTERNAL = {"subjects": 24, "modalities": ("ct",), "grades": GRADES, "slices": 48, "seed": 21, "prefix": "study"}
TRAIN, VALIDATION = 14, 2
#: Another hospital: other people, thicker slices, noise of a coarser grain, streaks, a couch with calibration rods.
EXTERNAL = {"subjects": 40, "modalities": ("ct",), "grades": GRADES, "slices": 24, "seed": 22, "prefix": "other"}
OTHER_SCANNER = Scanner(noise=30.0, noise_grain_mm=1.0, streaks=20.0, table=True, calibration=True)

LEG = {"kind": "leg", "spacing_mm": 2.5, "size": [96, 96]}
FEMUR = {"kind": "femur", "spacing_mm": 2.5, "size": [120, 96, 96]}
#: What all arms of a tier share.
COMMON: Mapping[str, Mapping[str, Any]] = {
    "cpu": {
        "window": {"kind": "fixed", "low": -150, "high": 350},
        "augmentation": {"rotation_deg": 15, "scale": 0.15, "shift": 0.05},
        "schedule": {"steps": 100, "batch": 8, "learning_rate": 2e-3, "optimiser": "adam"},
    },
    "gpu": {
        "window": {"kind": "fixed", "low": -150, "high": 350},
        "augmentation": {"rotation_deg": 15, "scale": 0.15, "shift": 0.05},
        "schedule": {"steps": 250, "batch": 16, "epochs": 100, "learning_rate": 1e-3, "optimiser": "adam"},
        "precision": "bfloat16",
        "channels_last": True,
    },
}
#: Arm -> view, network and schedule of its own. On the processor the epochs make about 15 minutes on one thread.
ARMS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "cpu": {
        "bayesian-unet": {"view": LEG, "network": {"width": 16, "depth": 4, "dropout": 0.2}, "epochs": 30},
        "unet-2d": {"view": FEMUR, "network": {"width": 16}, "epochs": 60},
        "unet-2.5d": {"view": FEMUR, "network": {"width": 16}, "epochs": 20},
        "unet-3d": {"view": FEMUR, "network": {"width": 16}, "epochs": 9, "block": [64, 64, 64], "batch": 1},
        "dense-unet": {"view": LEG, "network": {"width": 16, "layers": 4, "growth": 8}, "epochs": 14},
        "manet": {"view": LEG, "network": {"width": 16}, "epochs": 42},
        "segformer": {"view": LEG, "network": {"width": 16, "decoder_width": 64}, "epochs": 90},
        "fcn-8s": {"view": LEG, "network": {"width": 12}, "epochs": 65},
        "unet-256": {"view": LEG, "network": {"width": 16, "levels": 5}, "epochs": 90},
    },
    "gpu": {
        "bayesian-unet": {"view": LEG, "network": {}},
        "unet-2d": {"view": FEMUR, "network": {}},
        "unet-2.5d": {"view": FEMUR, "network": {}},
        "unet-3d": {"view": FEMUR, "network": {}, "block": [96, 96, 96], "batch": 2},
        "dense-unet": {"view": LEG, "network": {}},
        "manet": {"view": LEG, "network": {}},
        "segformer": {"view": LEG, "network": {}},
        "fcn-8s": {"view": LEG, "network": {}},
        "unet-256": {"view": {**LEG, "size": [256, 256]}, "network": {}},
    },
}
#: The comparator of Hiasa et al. that is not a network.
ATLASES = "multiatlas"
#: Whose surface distances are shown leg by leg.
HEAT = "bayesian-unet"


@dataclass(frozen=True)
class Study:
    """What is trained and scored: by the plans of which tier, with which seed."""

    out: Path
    tier: str = "cpu"
    seed: int = 1

    def training(self, arm: str) -> Path:
        return self.out / self.tier / f"{arm}_{self.seed}"

    def scores(self, arm: str, cohort: str) -> Path:
        return self.out / self.tier / f"{arm}_{self.seed}_{cohort}.csv"

    def manifest(self, cohort: str) -> Path:
        return self.out / cohort / "manifest.csv"

    def plan(self, arm: str) -> dict[str, Any]:
        """Return the plan of an arm as plain data."""
        own, common = ARMS[self.tier][arm], COMMON[self.tier]
        schedule = {**common["schedule"], **{key: own[key] for key in ("epochs", "batch") if key in own}}
        return {
            "kind": "train",
            "task": "segment",
            "name": arm,
            "seed": self.seed,
            "labels": LABELS,
            "contrasts": ["ct"],
            "split": "train",
            "validation_split": "validation",
            **common,
            "view": own["view"],
            "network": {"name": arm, **own["network"]},
            "schedule": schedule,
            **({"block": own["block"]} if "block" in own else {}),
            "data": "phantoms",
            "licence": "Apache-2.0",
        }


def write_cohorts(study: Study) -> None:
    """Write both cohorts, unless they are there."""
    for cohort, people, scanner in (("internal", INTERNAL, None), ("external", EXTERNAL, OTHER_SCANNER)):
        manifest = study.manifest(cohort)
        if manifest.exists():
            continue
        write_phantoms(manifest.parent, **people, reference=LABELS, scanner=scanner)
        rows = read_manifest(manifest)
        names = list(dict.fromkeys(row.subject for row in rows))
        parts = dict(zip(names, ["train"] * TRAIN + ["validation"] * VALIDATION + ["test"] * len(names), strict=False))
        write_manifest([replace(row, split=parts[row.subject] if cohort == "internal" else "test") for row in rows],
                       manifest)  # fmt: skip


def train(study: Study, arm: str, jobs: int) -> Path:
    """Train an arm, or go on with it, and return its checkpoint."""
    folder = study.training(arm)
    checkpoint = folder / "network.pt"
    if (folder / "report.html").exists():
        check_plan(study, arm)
        return checkpoint
    # Not with_suffix: the name of an arm may hold a dot.
    plan = folder.parent / f"{folder.name}.toml"
    plan.parent.mkdir(parents=True, exist_ok=True)
    plan.write_text(toml_of(study.plan(arm)), encoding="utf-8")
    device = str(resolve_device("cuda")) if study.tier == "gpu" else "cpu"
    train_segmenter_on_manifest(plan, study.manifest("internal"), folder, device=device, jobs=jobs)
    return checkpoint


def check_plan(study: Study, arm: str) -> None:
    """Refuse a training by another plan: its numbers would stand under this one."""
    run = json.loads((study.training(arm) / "run.json").read_text(encoding="utf-8"))
    had, wanted = run["parameters"]["plan"], SegmenterPlan.from_data(study.plan(arm)).as_data()
    differ = [name for name, value in json.loads(json.dumps(wanted)).items() if had.get(name, value) != value]
    if differ:
        raise SystemExit(f"{study.training(arm)} was trained by another plan (it differs in: {', '.join(differ)})")


def segmenter_of(study: Study, arm: str) -> Segmenter:
    """Return an arm, ready to segment."""
    if arm != ATLASES:
        made: Segmenter = build(arm, checkpoint=str(study.training(arm) / "network.pt"))
        return made
    cases = open_cases(study.manifest("internal"))
    learnt = [cases.open(rows[0].case_id) for rows in cases.rows if rows[0].split == "train"]
    atlases: Segmenter = build(ATLASES)
    return atlases.fit(learnt)


def score(study: Study, arm: str, cohort: str) -> pd.DataFrame:
    """Score an arm on the people to be tested of a cohort."""
    path = study.scores(arm, cohort)
    if not path.exists():
        cases = open_cases(study.manifest(cohort))
        tested = [cases.open(rows[0].case_id) for rows in cases.rows if rows[0].split == "test"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            table = evaluate({arm: segmenter_of(study, arm)}, tested, ["dice", "asd", "volume_error"])
        write_scores(table, path)
    return read_scores(path)


def run_arm(study: Study, arm: str) -> str:
    """Train and score an arm, in a process of its own, on one thread."""
    if arm != ATLASES:
        train(study, arm, jobs=1)
    for cohort in ("internal", "external"):
        score(study, arm, cohort)
    return arm


def done(studies: Sequence[Study]) -> list[str]:
    """Arms that are trained and scored with every seed."""
    arms = [*ARMS[studies[0].tier], ATLASES]
    return [arm for arm in arms if all(study.scores(arm, "external").exists() for study in studies)]


def scores_of(studies: Sequence[Study]) -> dict[str, pd.DataFrame]:
    """Scores of the arms that are done, means over seeds, by cohort, with means over muscles."""
    return {
        cohort: with_means(
            over_seeds([read_scores(study.scores(arm, cohort)) for study in studies for arm in done(studies)])
        )
        for cohort in ("internal", "external")
    }


def tables(studies: Sequence[Study]) -> dict[str, list[str]]:
    """Return every table of the document by its marker, of the arms that are done."""
    study, arms = studies[0], done(studies)
    found: dict[str, list[str]] = {}
    networks = [arm for arm in arms if arm != ATLASES]
    steps = {arm: COMMON[study.tier]["schedule"]["steps"] * epochs_of(study, arm) for arm in networks}
    weights = {arm: weights_of(study, arm) for arm in networks}
    for cohort, scores in scores_of(studies).items():
        found[f"overview {cohort}"] = overview(scores, steps, weights)
        found[f"pairs {cohort}"] = pairs(scores)
        if cohort == "internal":
            found["dice"] = per_muscle(scores, "dice", 3)
            found["asd"] = per_muscle(scores, "asd", 2)
    return found


def epochs_of(study: Study, arm: str) -> int:
    return int(study.plan(arm)["schedule"]["epochs"])


def weights_of(study: Study, arm: str) -> int:
    plan = SegmenterPlan.from_data(study.plan(arm))
    return sum(weights.numel() for weights in plan.build().parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--tier", choices=list(ARMS), default="cpu")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--arms", default="")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.name}")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    arms = given.arms.split(",") if given.arms else [*ARMS[given.tier], ATLASES]
    studies = [Study(given.out, given.tier, int(seed)) for seed in given.seeds.split(",")]
    for study in studies:
        write_cohorts(study)
        with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
            for arm in pool.map(run_arm, [study] * len(arms), arms):
                print(f"{arm} (seed {study.seed}): done", flush=True)
    for marker, lines in tables(studies).items():
        print("\n".join([marker, *lines, ""]))
        if given.write:
            put_between(DOCUMENT, marker, lines)
    if given.write:
        write_figures(figures(scores_of(studies), HEAT))


if __name__ == "__main__":
    main()
