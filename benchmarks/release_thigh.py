"""Put the segmenter of any contrast into the package, with what its answers are worth.

    python -m benchmarks.release_thigh runs/thigh --data ../shared/data [--slices 1500]

What the answers are worth (which slices show a thigh, what Dice to expect of a muscle) is learnt on slices drawn from
the people by whom the training chose its epoch; no image of anybody is looked at.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from benchmarks.thigh import PLANS, subject_of
from musclekit import io
from musclekit.image import Contrast
from musclekit.labels import label_set
from musclekit.metrics import dice
from musclekit.neural.cards import SegmenterCard
from musclekit.neural.checkpoint import load_checkpoint, save_checkpoint
from musclekit.neural.segmentation import class_probabilities
from musclekit.neural.training.segmentation import LOSSES
from musclekit.neural.training.segmenter_plan import read_segmenter_plan
from musclekit.phantom import LegPlanes, draw_slice, leg_planes
from musclekit.segmenters.thigh import WEIGHTS
from musclekit.segmenters.thigh_decision import stepwise_scores
from musclekit.segmenters.thigh_trust import CONTEXT, LEAST_MM2, MUSCLE_IDS, ThighTrust, slice_features, soft_dice
from musclekit.weights import FOLDER

#: The training whose result ships.
LAST = tuple(PLANS)[-1]
#: A slice shows a thigh where the eleven are at least this share of its muscle, and other bone is less than this.
LEAST_SHARE, MOST_BONE_MM2 = 0.5, 300.0
#: CT is shown in this window, in HU. What is drawn has no HU, so that any will do; in the wider one of other networks,
#: -200 to 500, muscle and fat lie close together: on five scans it did worse (docs/results_any_contrast.md).
CT_WINDOW = (-160.0, 240.0)
#: Points of the curve from a soft Dice to the Dice to expect.
KNOTS = 12
LIMITS = (
    "Learnt from label maps alone, most of them of Asian patients with muscular dystrophy, and never from an image.",
    "Labels eleven muscles; short adductors, pectineus, glutei and what else there is are 'other muscle'.",
    "Hips, knees and calves get no labels where they are recognised; docs/results_any_contrast.md says how often.",
)


def people(data: Path, names: tuple[str, ...]) -> list[LegPlanes]:
    """Return the legs of people by name."""
    found: list[LegPlanes] = []
    for file in sorted((data / "huashan_labels").glob("*.nii.gz")):
        subject = subject_of(file.name.removesuffix(".nii.gz"))
        if subject in names:
            found += leg_planes(io.read_labels(file, label_set("huashan-11")), subject)
    return found


def is_thigh(classes: NDArray[np.uint8], pixel_mm2: float) -> bool:
    """Say whether the truth of a slice is a thigh."""
    area = np.bincount(classes.ravel(), minlength=len(CONTEXT) + 1) * pixel_mm2
    eleven = area[list(MUSCLE_IDS)].sum()
    other, bone = (area[CONTEXT.ids_of(name)[0]] for name in ("other muscle", "other bone"))
    return bool(eleven >= LEAST_SHARE * max(eleven + other, LEAST_MM2) and bone < MOST_BONE_MM2)


def learn(checkpoint: Path, data: Path, slices: int) -> tuple[ThighTrust, dict[str, float]]:
    """Learn what the answers of a network are worth, and say how well that can be told."""
    network, card = load_checkpoint(checkpoint, SegmenterCard)
    network.eval()
    how = read_segmenter_plan(PLANS[LAST]).synthesis
    assert how is not None
    legs = people(data, card.validation_subjects)
    rng = np.random.default_rng(9)
    pixel = how.spacing_mm**2
    features, truths, soft, reached = [], [], [], []
    for _ in range(slices):
        drawn = draw_slice(legs, rng, how)
        answer = class_probabilities(network, drawn.image[None, None])
        answer = answer.reshape(len(CONTEXT) + 1, 1, *drawn.image.shape)
        features.append(slice_features(answer, pixel)[0])
        truths.append(is_thigh(drawn.classes, pixel))
        if not truths[-1]:
            continue
        labelled = stepwise_scores(answer)[:, 0].argmax(axis=0)
        for muscle, value in zip(MUSCLE_IDS, soft_dice(answer), strict=True):
            if np.isfinite(value) and np.sum(labelled == muscle) * pixel >= LEAST_MM2:
                soft.append(value)
                reached.append(dice(labelled == muscle, drawn.classes == muscle))
    table, truth = np.array(features), np.array(truths)
    half = len(table) // 2
    model = LogisticRegression(C=1.0, max_iter=1000).fit(table[:half], truth[:half])
    told = model.predict(table[half:])
    curve = IsotonicRegression(out_of_bounds="clip").fit(soft[: len(soft) // 2], reached[: len(soft) // 2])
    knots = np.quantile(soft, np.linspace(0, 1, KNOTS))
    off = np.abs(curve.predict(soft[len(soft) // 2 :]) - reached[len(soft) // 2 :])
    figures = {
        "slices": float(slices),
        "thighs_recognised": float(told[truth[half:]].mean()),
        "others_recognised": float(1 - told[~truth[half:]].mean()),
        "mean_dice_of_muscles_in_slices": float(np.mean(reached)),
        "expected_dice_off_by": float(off.mean()),
    }
    trust = ThighTrust(model.coef_[0], float(model.intercept_[0]), knots, curve.predict(knots))
    return trust, {name: round(value, 4) for name, value in figures.items()}


def how_made(folder: Path) -> str:
    """Say on what, and in how many updates, the trainings made what they kept."""
    parts = []
    for name in PLANS:
        _, card = load_checkpoint(folder / name / "network.pt", SegmenterCard)
        record = json.loads((folder / name / "run.json").read_text(encoding="utf-8"))
        updates = card.schedule["best_epoch"] * card.schedule["steps"]
        parts.append(f"{updates} updates of {card.schedule['batch']} slices on '{record['device']}'")
    return f"Made in {', then '.join(parts)}."


def keep_losses(folder: Path) -> None:
    """Keep the losses of every training beside the plans."""
    for step, plan in PLANS.items():
        shutil.copyfile(folder / step / LOSSES, plan.with_name(f"thigh_{step}_losses.csv"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what benchmarks.thigh wrote")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=1500)
    parser.add_argument("-o", "--out", type=Path, default=FOLDER)
    given = parser.parse_args()
    source = given.folder / LAST / "network.pt"
    trust, figures = learn(source, given.data, given.slices)
    print(json.dumps(figures, indent=2))
    network, card = load_checkpoint(source, SegmenterCard)
    path = given.out / f"{WEIGHTS}.pt"
    ct = replace(card.windows[Contrast.CT], low=CT_WINDOW[0], high=CT_WINDOW[1])
    card = replace(
        card,
        name=WEIGHTS,
        windows={**card.windows, Contrast.CT: ct},
        scores=figures,
        limits=(how_made(given.folder), *LIMITS, *card.limits),
    )
    written = save_checkpoint(path, network, card, half=True)
    path.with_suffix(".json").write_text(
        f"{json.dumps(written.as_data(), indent=2, ensure_ascii=False)}\n", encoding="utf-8"
    )
    trust.save(path.with_suffix(".trust.json"), written.weights_sha256)
    keep_losses(given.folder)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
