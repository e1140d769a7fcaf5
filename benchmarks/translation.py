"""What hard-to-easy translation does for segmentation, on a cohort of phantoms: tables of docs/results_translation.md.

    python -m benchmarks.translation -o runs/translation [--contrast t1w] [--tier cpu] [--seeds 1] [--jobs 2] [--write]

Each arm is one loss of Gadermayr et al., G(w_r, w_i): its translator is trained on phantoms that the cohort does not
hold, one arm a process, and translates the cohort of `benchmarks.classical`. The methods segment what comes out. Their
parameters are searched for each arm by itself, nested, leaving one subject out, so that each arm is shown at its best.
What was trained or searched before is not done again. Of Dixon fat images (``--contrast fat``) there is one arm and one
method, the mixture: what the rule for weights that ship goes by.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from statsmodels.stats.multitest import multipletests

from benchmarks.classical import METHODS as ALL_METHODS
from benchmarks.classical import as_muscle, grades_of, put_between, spread, write_cohort
from musclekit.evaluation import score, write_scores
from musclekit.evaluation.comparison import compare
from musclekit.evaluation.search import Plan, read_plan, search
from musclekit.image import Case, Contrast, LabelMap
from musclekit.io import read_labels, read_manifest, write_manifest
from musclekit.labels import label_mapping, label_set
from musclekit.neural.device import resolve_device
from musclekit.phantom import make_thigh, render
from musclekit.protocols import Translator
from musclekit.quantify import measure
from musclekit.registry import build
from musclekit.segmenters.tissue import TissueSegmenter
from musclekit.translators.safety import safety
from musclekit.workflows import write_phantoms
from musclekit.workflows.cases import open_cases
from musclekit.workflows.train import train_on_manifest

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "results_translation.md"

#: Arm -> weights of the ReLU and of the identity.
LOSSES = {"G(0,0)": (0, 0), "G(0,1)": (0, 1), "G(.5,1)": (0.5, 1), "G(1,1)": (1, 1), "G(2,1)": (2, 1)}
#: What needs no training: the original image, and what a translator has to beat.
BASELINES = {"OI": "identity", "n4": "n4", "histogram": "histogram-match"}
#: Arms whose translation is kept to the compartment that the tissue segmenter finds: not in the paper.
GUARDED = {"G(.5,1) within": "G(.5,1)"}
ARMS = (*BASELINES, *LOSSES, *GUARDED)
#: What arms with a ReLU are held against.
WITHOUT_RELU = "G(0,1)"

#: Methods, each with fewer points than in `benchmarks.classical`: those at or beside what was chosen there, and more
#: smoothness, which cleaner images may bear. The mixture's own were the same in each of the 20 folds.
MIXTURE = {"per": ["slice"], "initial": ["robust"]}
GRIDS: Mapping[str, Mapping[str, Sequence[object]]] = {
    "gmm": MIXTURE,
    "gc_gmm": {**{f"unary__{name}": value for name, value in MIXTURE.items()}, "smoothness": [0.001, 0.05, 0.2, 0.5]},
    "spgc": {"smoothness": [0.001, 0.1], "prior_weight": [0.2, 1.0], "neutral_probability": [0.3, 0.5]},
}

#: Of contrasts other than the paper's: its best arm alone, for the rule for weights that ship.
BEST = "G(.5,1)"
#: The arms of the paper's table; the others are there for the mixture, which the rule for weights that ship goes by.
IN_TABLE = ("OI", *LOSSES)
#: Contrast of the paper.
T1W = str(Contrast.T1W)

#: The people that translators learn from are of these: none of the cohort's, whose seed is another.
GRADES = ("healthy", "minor", "moderate", "severe")
MODALITIES = ("mr", "dixon")
TRAINING = {"subjects": 64, "modalities": MODALITIES, "grades": GRADES, "slices": 8, "reference": "tissue", "seed": 11}
#: How many pairs of a hard and an easy thigh of one size are taken of them. Infiltrated thighs are smaller, of phantoms
#: as of people; a generator that sees that learns to let the compartment grow into the fat under the skin.
MATCHED = 16
#: The healthy person whose histogram the others are given.
TEMPLATE = "sub-01"
#: What the cycle, the ReLU and the identity are multiplied by beside the GAN: 1 as printed; Zhu et al., whom Gadermayr
#: et al. follow, say 10. Among themselves they are weighed as printed.
SCALE = 10

EASY = ("healthy", "minor")


@dataclass(frozen=True)
class Study:
    """What is trained and tried: on images of which contrast, by the plan of which tier, with which seed."""

    out: Path
    contrast: str = T1W
    tier: str = "cpu"
    seed: int = 1

    @property
    def name(self) -> str:
        """What its tables and folders are called."""
        return self.tier if self.contrast == T1W else f"{self.tier} {self.contrast}"

    @property
    def arms(self) -> tuple[str, ...]:
        return ARMS if self.contrast == T1W else (*BASELINES, BEST, *GUARDED)

    def methods(self, arm: str) -> list[str]:
        return [name for name in GRIDS if name == "gmm" or (self.contrast == T1W and arm in IN_TABLE)]

    def training(self, arm: str) -> Path:
        return self.out / self.name / f"{arm}_{self.seed}"

    def search(self, arm: str, method: str) -> Path:
        if arm in BASELINES:
            return self.out / self.name.replace(self.tier, "untrained") / "search" / arm / method
        return self.out / self.name / f"search_{self.seed}" / arm / method

    @property
    def scores(self) -> Path:
        return self.out / self.name / f"scores_{self.seed}.csv"

    @property
    def kept(self) -> Path:
        return self.out / self.name / f"kept_{self.seed}.csv"


def write_training(folder: Path) -> Path:
    """Write the people to learn from; ``split`` is "train" for those of either domain that are alike in size."""
    manifest = folder / "manifest.csv"
    if manifest.exists():
        return manifest
    cases = open_cases(write_phantoms(folder, **TRAINING)).all()
    area = {case.subject: compartment_area(case) for case in cases}
    hard, easy = (sorted({case.subject for case in cases if case.domain == domain}) for domain in ("hard", "easy"))
    apart = np.abs(np.subtract.outer([area[subject] for subject in hard], [area[subject] for subject in easy]))
    pairs = sorted(zip(*linear_sum_assignment(apart), strict=True), key=lambda pair: apart[pair])[:MATCHED]
    taken = {subject for i, j in pairs for subject in (hard[i], easy[j])}
    # A card names these people, and no evaluation takes a person whom it names: they need names of their own.
    rows = [
        replace(
            row,
            split="train" if row.subject in taken else "spare",
            case_id=f"phantom-{TRAINING['seed']}-{row.case_id}",
            subject=f"phantom-{TRAINING['seed']}-{row.subject}",
        )
        for row in read_manifest(manifest)
    ]
    write_manifest(rows, manifest)
    return manifest


def compartment_area(case: Case) -> float:
    """Mean area of the compartment in a slice, in mm2."""
    assert case.reference is not None
    labels = case.reference
    inside = labels.mapped(label_mapping(labels.label_set.unsided(), label_set("compartment"))).mask()
    return float(inside.sum(axis=(1, 2)).mean() * np.prod(labels.grid.spacing[1:]))


def train(study: Study, arm: str, jobs: int) -> Path:
    """Train an arm and return its checkpoint; what is trained already is not trained again."""
    relu, identity = LOSSES[arm]
    folder = study.training(arm)
    if (folder / "report.html").exists():
        return folder / "forward.pt"
    folder.parent.mkdir(parents=True, exist_ok=True)
    base = (HERE / "plans" / f"hard_to_easy_{study.tier}.toml").read_text(encoding="utf-8")
    base = base.replace(f'contrast = "{T1W}"', f'contrast = "{study.contrast}"')
    lines = [line for line in base.splitlines() if not line.startswith("seed =")]
    lines.insert(next(n for n, line in enumerate(lines) if line.startswith("kind")) + 1, f"seed = {study.seed}")
    weights = {"cycle": SCALE, "relu": SCALE * relu, "identity": SCALE * identity}
    lines += ["", "[loss]", *(f"{name} = {weight}" for name, weight in weights.items()), ""]
    plan = folder.parent / f"{folder.name}.toml"
    plan.write_text("\n".join(lines), encoding="utf-8")
    device = str(resolve_device("cuda")) if study.tier == "gpu" else "cpu"
    return train_on_manifest(plan, study.out / "training" / "manifest.csv", folder, device=device, jobs=jobs).forward


def cohort(study: Study) -> list[Case]:
    """Return the cohort, seen in the study's contrast alone."""
    if study.contrast == T1W:
        return open_cases(write_cohort(study.out / "cohort", 20, "muscle")).all()
    cases = open_cases(write_cohort(study.out / "cohort_dixon", 20, "muscle", modality="dixon")).all()
    seen = Contrast(study.contrast)
    return [replace(case, images={seen: case.images[seen]}) for case in cases]


def translator_of(study: Study, arm: str, checkpoints: Mapping[str, Path]) -> Translator:
    if arm in GUARDED:
        return build("hard-to-easy", checkpoint=str(checkpoints[GUARDED[arm]]), within="tissue")
    if arm in LOSSES:
        return build("hard-to-easy", checkpoint=str(checkpoints[arm]))
    if arm == "histogram":
        template = study.out / "training" / f"{TEMPLATE}_{study.contrast}.nii.gz"
        return build(BASELINES[arm], template=str(template))
    return build(BASELINES[arm])


def plan_of(name: str) -> Plan:
    return replace(read_plan(HERE / "plans" / f"{name}.toml"), grid=GRIDS[name])


def translate(translator: Translator, cases: Sequence[Case]) -> tuple[list[Case], pd.DataFrame]:
    """Translate the cohort; the masks belong to the originals. What was kept and what moved is a row a case."""
    tissue = TissueSegmenter()
    translated, rows = [], []
    for case in cases:
        fake = translator.translate(case.image)
        kept = safety(
            case.image, fake, before=tissue.segment(case.image), after=tissue.segment(fake), monotone="darker"
        )
        rows.append(
            {
                "subject": case.subject,
                "grade": case.meta["grade"],
                "edge_correlation": kept.edge_correlation,
                "compartment_dice": kept.compartment_dice,
                "boundary_moved": kept.boundary_moved,
                "against_direction": kept.against_direction,
            }
        )
        translated.append(replace(case, images={fake.contrast: fake}))
    return translated, pd.DataFrame(rows)


def fat_fraction_error(case: Case, muscle: LabelMap) -> float:
    """Fat fraction of a mask on the Dixon images of the same thigh, less the true one of muscle; in points of 100.

    The images are those of the phantom, never a translation.
    """
    assert case.side is not None
    assert case.reference is not None
    phantom = make_thigh(int(case.meta["seed"]), shape=case.image.grid.shape, legs=case.side, grade=case.meta["grade"])
    found = measure(muscle, fat=render(phantom, Contrast.FAT), water=render(phantom, Contrast.WATER))
    fraction = float(found.structures["fat_fraction_voxel_mean"].iloc[0])
    return 100 * (fraction - float(phantom.fat_fraction[as_muscle(case.reference).mask()].mean()))


def segment(study: Study, arm: str, cases: Sequence[Case], originals: Sequence[Case], jobs: int) -> pd.DataFrame:
    """Search every method on one arm, and score the masks of those left out on their originals."""
    tables = []
    for name in study.methods(arm):
        plan = plan_of(name)
        result = search(plan, cases, study.search(arm, name), jobs=jobs)
        found = label_set(str(build(**plan.method).label_set.name))
        for case in originals:
            assert case.reference is not None
            path = result.folder / "labels" / f"{case.id}_dseg.nii.gz"
            muscle = as_muscle(read_labels(path, found)) if path.exists() else None
            if muscle is None:
                raise SystemExit(f"{arm}, {name}: no labels of {case.id}; see {result.folder / 'scores.csv'}")
            scored = score(
                muscle,
                as_muscle(case.reference),
                case_id=case.id,
                subject=case.subject,
                method=f"{arm} {name}",
                side=case.side,
                metrics=("dice", "relative_volume_error"),
                slices=False,
            )
            fat = scored[scored["metric"] == "dice"].assign(
                metric="fat_fraction_error", value=fat_fraction_error(case, muscle)
            )
            tables += [scored, fat]
    return pd.concat(tables, ignore_index=True)


def values(scores: pd.DataFrame, arm: str, name: str, metric: str = "dice") -> pd.Series[float]:
    rows = scores[(scores["method"] == f"{arm} {name}") & (scores["metric"] == metric)]
    return rows.set_index("subject")["value"]


def score_table(scores: pd.DataFrame, study: Study) -> list[str]:
    lines = [
        "| arm | method | Dice, median | quartiles | least to most | volume error, % | fat fraction, error in points |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in GRIDS:
        for arm in (arm for arm in study.arms if name in study.methods(arm)):
            volume, fat = (values(scores, arm, name, m) for m in ("relative_volume_error", "fat_fraction_error"))
            lines.append(
                f"| {arm} | {ALL_METHODS[name]} | {spread(values(scores, arm, name))} | {volume.median():+.1f} |"
                f" {fat.median():+.1f} ({fat.abs().max():.1f} at most) |"
            )
    return lines


def pair_table(scores: pd.DataFrame, study: Study) -> list[str]:
    """Paired differences of Dice by subject; Holm's correction over the rows of one method."""
    trained = [arm for arm in study.arms if arm not in BASELINES]
    pairs = [(arm, base) for arm in trained for base in BASELINES]
    pairs += [(arm, WITHOUT_RELU) for arm in trained if WITHOUT_RELU in trained and LOSSES.get(arm, (0,))[0]]
    lines = ["| method | arm | against | n | median difference | 95 % | Wilcoxon p | Holm p |", "|---" * 8 + "|"]
    for name in GRIDS:
        told = [pair for pair in pairs if all(name in study.methods(arm) for arm in pair)]
        if not told:
            continue
        compared = [
            compare(
                scores[scores["method"].isin([f"{arm} {name}", f"{base} {name}"])],
                metric="dice",
                label="muscle",
                baseline=f"{base} {name}",
            ).iloc[0]
            for arm, base in told
        ]
        adjusted = multipletests([item["p"] for item in compared], method="holm")[1]
        for (arm, base), item, p in zip(told, compared, adjusted, strict=True):
            lines.append(
                f"| {ALL_METHODS[name]} | {arm} | {base} | {item['n']} | {item['difference']:+.3f} |"
                f" {item['low']:+.3f} to {item['high']:+.3f} | {item['p']:.4f} | {p:.4f} |"
            )
    return lines


def kept_table(kept: pd.DataFrame, scores: pd.DataFrame, grades: Mapping[str, str]) -> list[str]:
    """What was kept on severe and on easy thighs, and what translating an easy one costs the mixture."""
    lines = [
        "| arm | boundary moved, severe (most) | easy (most) | edge correlation, severe | easy |"
        " against the direction, severe | easy | Dice of GMM on easy less that of OI: mean (least) |",
        "|---" * 8 + "|",
    ]
    for arm, table in kept.groupby("arm", sort=False):
        severe, easy = table[table["grade"] == "severe"], table[table["grade"].isin(EASY)]
        difference = values(scores, arm, "gmm") - values(scores, "OI", "gmm")
        difference = difference[difference.index.map(grades).isin(EASY)]
        cells = [
            f"{part['boundary_moved'].median():.1%} ({part['boundary_moved'].max():.1%})" for part in (severe, easy)
        ]
        cells += [f"{part['edge_correlation'].median():.2f}" for part in (severe, easy)]
        cells += [f"{part['against_direction'].median():.1%}" for part in (severe, easy)]
        lines.append(f"| {arm} | {' | '.join(cells)} | {difference.mean():+.3f} ({difference.min():+.3f}) |")
    return lines


def training_table(studies: Sequence[Study]) -> list[str]:
    lines = ["| arm | seed | epochs | cycle | identity | ReLU | discriminators |", "|---" * 7 + "|"]
    for arm in (arm for arm in LOSSES if arm in studies[0].arms):
        for study in studies:
            last = pd.read_csv(study.training(arm) / "losses.csv").iloc[-1]
            terms = [f"{last[term]:.3f}" if term in last else "" for term in ("cycle", "identity", "relu")]
            critics = " and ".join(f"{last[f'discriminator_{side}']:.2f}" for side in ("source", "target"))
            lines.append(f"| {arm} | {study.seed} | {last['epoch']:.0f} | {' | '.join(terms)} | {critics} |")
    return lines


def work(study: Study, originals: Sequence[Case], jobs: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train, translate, search; return and write the scores, and what was kept."""
    trained = [arm for arm in LOSSES if arm in study.arms]
    together = jobs if study.tier == "cpu" else 1
    threads = max(1, (os.cpu_count() or 1) // together)
    with ProcessPoolExecutor(together, get_context("spawn")) as pool:
        waiting = {arm: pool.submit(train, study, arm, threads) for arm in trained}
        checkpoints = {arm: job.result() for arm, job in waiting.items()}
    tables, kept = [], []
    for arm in study.arms:
        fakes, moved = translate(translator_of(study, arm, checkpoints), originals)
        kept.append(moved.assign(arm=arm))
        tables.append(segment(study, arm, fakes, originals, jobs))
        print(f"seed {study.seed}, {arm}: done", flush=True)
    scores, changes = pd.concat(tables, ignore_index=True), pd.concat(kept, ignore_index=True)
    write_scores(scores[scores["metric"] != "fat_fraction_error"], study.scores)
    changes.to_csv(study.kept, index=False)
    return scores, changes


def averaged(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Means over the seeds, person by person: people are the sample, seeds are not."""
    joined = pd.concat(tables, ignore_index=True)
    numbers = list(joined.select_dtypes("float"))
    keys = [name for name in joined.columns if name not in (*numbers, "params_id")]
    return joined.groupby(keys, sort=False, as_index=False, dropna=False)[numbers].mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of cohorts, trainings and searches")
    parser.add_argument("--contrast", choices=(T1W, str(Contrast.FAT)), default=T1W, help="of the images")
    parser.add_argument("--tier", choices=("cpu", "gpu"), default="cpu", help="which plan translators are trained by")
    parser.add_argument("--seeds", default="1", help="of the trainings, as 1,2,3")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes; arms trained at once on the CPU")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.relative_to(HERE.parent)}")
    given = parser.parse_args()
    studies = [Study(given.out, given.contrast, given.tier, int(seed)) for seed in given.seeds.split(",")]
    # A mixture that doubts itself says so at every point of every fold, here and in the workers.
    warnings.simplefilter("ignore", UserWarning)
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning"
    write_training(given.out / "training")
    originals = cohort(studies[0])
    results = [work(study, originals, given.jobs) for study in studies]
    scores, kept = (averaged([result[n] for result in results]) for n in (0, 1))
    grades = grades_of(originals)
    severe = scores[scores["subject"].map(grades).eq("severe")]
    for name, lines in {
        "scores": score_table(severe, studies[0]),
        "pairs": pair_table(severe, studies[0]),
        "kept": kept_table(kept, scores, grades),
        "training": training_table(studies),
    }.items():
        print("\n".join(["", f"## {name}", "", *lines]))
        if given.write:
            put_between(DOCUMENT, f"{studies[0].name} {name}", lines)


if __name__ == "__main__":
    main()
