"""Put a trained translator into the package, with what it reached and what it cannot do on its card.

    python -m benchmarks.release_weights runs/translation [--contrast t1w] [--tier cpu]

Scores are those that ``benchmarks.translation`` left in the folder, of its best arm kept to the compartment. A
translator that does not hold the rule of docs/results_translation.md is refused.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.classical import grades_of
from benchmarks.translation import BASELINES, BEST, EASY, GUARDED, T1W, Study, cohort
from musclekit.evaluation import read_scores
from musclekit.evaluation.comparison import compare
from musclekit.neural.cards import TranslatorCard
from musclekit.neural.checkpoint import load_checkpoint, save_checkpoint
from musclekit.weights import FOLDER

#: The rule: share of the compartment's boundary that may move on severe thighs (median), and what the Dice of the
#: mixture may lose on easy ones (mean).
MOST_MOVED = 0.02
MOST_LOST = 0.01

#: What the scores rest on.
MEANT_WITH = {"within": "tissue"}
#: On real people, by contrast: what benchmarks.real_hard_to_easy found.
ON_PEOPLE = {
    "t1w": "Trained on phantoms alone, and never tried on T1-weighted scans of people with infiltrated muscle.",
    "fat": "Trained on phantoms alone. Tried on two people (Huashan 001 and 003): methods that go by grey values gain, "
    "those that go by shape lose, and the checks of the translation fail; see docs/results_translation.md.",
}
LIMITS = (
    'Meant with within = "tissue": without it fat under the skin darkens too, and the border of the compartment moves.',
    "Fat between muscles becomes muscle where infiltration hides the border: muscle comes out too large.",
    "For segmentation only. Grey values of a translation measure nothing.",
)


def figures(study: Study) -> dict[str, object]:
    """Return what the best arm, kept to the compartment, reached on the cohort, by the mixture."""
    arm = next(name for name, unguarded in GUARDED.items() if unguarded == BEST)
    scores = read_scores(study.scores)
    kept = pd.read_csv(study.kept)
    grades = grades_of(cohort(study))
    dice = scores[(scores["metric"] == "dice") & scores["slice"].isna()]
    severe = dice[dice["subject"].map(grades).eq("severe")]
    table = dice.pivot_table(index="subject", columns="method", values="value")
    gain = table[f"{arm} gmm"] - table["OI gmm"]
    found: dict[str, object] = {
        "cohort": "20 phantoms of seed 2019, 10 of them severe, none of them trained on",
        "dice_gmm_severe": round(float(np.median(table[f"{arm} gmm"][table.index.map(grades) == "severe"])), 3),
        "dice_gmm_severe_original": round(float(np.median(table["OI gmm"][table.index.map(grades) == "severe"])), 3),
        "dice_gmm_easy_change": round(float(gain[table.index.map(grades).isin(EASY)].mean()), 4),
    }
    for base in BASELINES:
        pair = severe[severe["method"].isin([f"{arm} gmm", f"{base} gmm"])]
        item = compare(pair, metric="dice", label="muscle", baseline=f"{base} gmm").iloc[0]
        found[f"gain_over_{BASELINES[base]}"] = [round(float(item[key]), 3) for key in ("difference", "low", "high")]
    moved = kept[kept["grade"] == "severe"].groupby("arm")["boundary_moved"].median()
    found["boundary_moved_severe"] = round(float(moved[arm]), 4)
    found["boundary_moved_severe_without_within"] = round(float(moved[BEST]), 4)
    return found


def broken(found: dict[str, object]) -> list[str]:
    """Say which parts of the rule the figures break."""
    gains = {name: value for name, value in found.items() if name.startswith("gain_over_")}
    problems = [f"{name} is {value}" for name, value in gains.items() if not (isinstance(value, list) and value[1] > 0)]
    if not float(str(found["boundary_moved_severe"])) < MOST_MOVED:
        problems.append(f"boundary_moved_severe is {found['boundary_moved_severe']}")
    if not float(str(found["dice_gmm_easy_change"])) >= -MOST_LOST:
        problems.append(f"dice_gmm_easy_change is {found['dice_gmm_easy_change']}")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what benchmarks.translation wrote")
    parser.add_argument("--contrast", default=T1W, help="of the images")
    parser.add_argument("--tier", default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    study = Study(given.folder, given.contrast, given.tier, given.seed)
    found = figures(study)
    print(json.dumps(found, indent=2))
    if problems := broken(found):
        raise SystemExit(f"not released: {'; '.join(problems)}")
    network, card = load_checkpoint(study.training(BEST) / "forward.pt", TranslatorCard)
    name = f"hard-to-easy-{study.contrast}"
    limits = (ON_PEOPLE[study.contrast], *LIMITS, *card.limits)
    card = replace(card, name=name, scores=found, limits=limits, meant_with=MEANT_WITH)
    path = FOLDER / f"{name}.pt"
    written = save_checkpoint(path, network, card, half=True)
    text = json.dumps(written.as_data(), indent=2, ensure_ascii=False)
    path.with_suffix(".json").write_text(f"{text}\n", encoding="utf-8")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
