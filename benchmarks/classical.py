"""What the classical methods reach on a cohort of phantoms: the tables of docs/results_classical.md.

    python -m benchmarks.classical -o runs/classical [--jobs 2] [--subjects 20] [--methods gmm,gc,...] [--small]

20 people, one thigh each, 10 of them severe; always the same. The parameters of each method are searched by nested
leave-one-subject-out over the grids of `benchmarks/plans`, so that a person's score rests on nothing that was chosen
with that person in view. The cohort is written as files: every step can be done with the commands, too
(``musclekit search benchmarks/plans/spgc.toml --cases runs/classical/cohort/manifest.csv -o runs/spgc``). A search that
was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from musclekit.evaluation import score, write_scores
from musclekit.evaluation.comparison import compare
from musclekit.evaluation.search import Plan, SearchResult, read_plan, search
from musclekit.image import Case, LabelMap
from musclekit.io import read_labels
from musclekit.labels import label_mapping, label_set
from musclekit.registry import build
from musclekit.workflows import write_phantoms
from musclekit.workflows.cases import open_cases

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "results_classical.md"

#: 10 severe, 4 healthy, 3 minor, 3 moderate of 20, each as often left as right as can be.
GRADES = (
    *("severe", "severe", "healthy", "minor", "severe", "severe"),
    *("moderate", "healthy", "severe", "severe", "minor", "moderate"),
)
SEED = 2019

#: Name of the plan -> what the method is called in the tables.
METHODS = {
    "gmm": "GMM",
    "gc_gmm": "GC, unary GMM",
    "gc": "GC, unary learnt",
    "spgc": "SPGC",
    "levelset": "level set, compartment taken as muscle",
    "multiatlas": "multi-atlas",
}

#: Which method is held to be better than which.
PAIRS = (
    *(("gc_gmm", "gmm"), ("gc", "gmm"), ("spgc", "gc_gmm"), ("spgc", "gc")),
    *(("spgc", "multiatlas"), ("spgc", "levelset")),
)

#: What the label maps are measured by, all of them as muscle against everything else.
MEASURES = ("dice", "asd", "hd95", "relative_volume_error")

#: Methods whose search goes by a compartment of muscle and intermuscular fat, which the set "tissue" can tell.
ON_TISSUE = ("levelset",)


def write_cohort(folder: Path, subjects: int, reference: str, *, modality: str = "mr") -> Path:
    """Write the cohort, or take the one that is there; the same people whatever the label set of the references."""
    manifest = folder / "manifest.csv"
    if manifest.exists() and len(open_cases(manifest)) == subjects:
        return manifest
    return write_phantoms(
        folder,
        subjects=subjects,
        modalities=(modality,),
        grades=[GRADES[n % len(GRADES)] for n in range(subjects)],
        slices=8,
        size=128,
        leg="alternate",
        reference=reference,
        seed=SEED,
    )


def plan_of(name: str, *, small: bool) -> Plan:
    """Read the plan of a method; small: the middle two values of each parameter, to try the pipeline with."""
    plan = read_plan(HERE / "plans" / f"{name}.toml")
    if not small:
        return plan
    assert isinstance(plan.grid, Mapping)
    middle = {name: list(values)[max(0, len(values) // 2 - 1) :][:2] for name, values in plan.grid.items()}
    return replace(plan, grid=middle)


def as_muscle(labels: LabelMap) -> LabelMap:
    """Labels as muscle or not; a compartment counts as muscle, its intermuscular fat with it."""
    muscle = label_set("muscle")
    if labels.label_set.name == "compartment":
        return LabelMap(labels.mask("compartment"), labels.grid, muscle)
    return labels.mapped(label_mapping(labels.label_set, muscle))


def muscle_scores(name: str, result: SearchResult, cases: Sequence[Case]) -> pd.DataFrame:
    """Score, as muscle against the rest, the label maps of the subjects that were left out."""
    found = label_set(str(build(**plan_of(name, small=False).method).label_set.name))
    tables = []
    for case in cases:
        assert case.reference is not None
        path = result.folder / "labels" / f"{case.id}_dseg.nii.gz"
        if not path.exists():
            raise SystemExit(f"{name}: no labels of {case.id}; see {result.folder / 'scores.csv'} for what happened")
        tables.append(
            score(
                as_muscle(read_labels(path, found)),
                as_muscle(case.reference),
                case_id=case.id,
                subject=case.subject,
                method=name,
                side=case.side,
                metrics=MEASURES,
                slices=False,
            )
        )
    return pd.concat(tables, ignore_index=True)


def run(out: Path, methods: Sequence[str], *, subjects: int, jobs: int, small: bool) -> pd.DataFrame:
    """Search every method and score what it found of those left out; one table, also in ``scores.csv``."""
    manifests = {
        "thigh-11": write_cohort(out / "cohort", subjects, "thigh-11"),
        "tissue": write_cohort(out / "cohort_tissue", subjects, "tissue"),
    }
    cases = {name: open_cases(path).all() for name, path in manifests.items()}
    seconds_file = out / "seconds.json"
    seconds = json.loads(seconds_file.read_text()) if seconds_file.exists() else {}
    tables = []
    for name in methods:
        folder = out / "search" / name
        fresh = not folder.exists()
        start = time.perf_counter()
        plan = plan_of(name, small=small)
        result = search(plan, cases["tissue" if name in ON_TISSUE else "thigh-11"], folder, jobs=jobs)
        if fresh:
            seconds[name] = round(time.perf_counter() - start, 1)
            seconds_file.write_text(json.dumps(seconds))
        tables.append(muscle_scores(name, result, cases["thigh-11"]))
        dices = tables[-1].query("metric == 'dice'")["value"]
        print(
            f"{name}: {len(plan.points)} points, {seconds.get(name, '?')} s, median Dice {dices.median():.3f}",
            flush=True,
        )
    scores = pd.concat(tables, ignore_index=True)
    write_scores(scores, out / "scores.csv")
    return scores


def spread(values: pd.Series[float], digits: int = 3) -> str:
    """Median, quartiles, least and most."""
    low, first, median, third, high = np.percentile(values, [0, 25, 50, 75, 100])
    return f"{median:.{digits}f} | {first:.{digits}f} to {third:.{digits}f} | {low:.{digits}f} to {high:.{digits}f}"


def grades_of(cases: Sequence[Case]) -> dict[str, str]:
    return {case.subject: str(case.meta["grade"]) for case in cases}


def score_tables(scores: pd.DataFrame, grades: Mapping[str, str]) -> list[str]:
    """Dice and the other measures, of severe thighs and of the others."""
    lines = []
    of_subject = scores.assign(severe=scores["subject"].map(grades).eq("severe"))
    for severe, title in ((True, "Severe"), (False, "Healthy, minor and moderate")):
        rows = of_subject[of_subject["severe"] == severe]
        n = rows["subject"].nunique()
        lines += [
            f"**{title}** ({n} subjects)",
            "",
            "| method | Dice, median | quartiles | least to most | ASD, mm | HD95, mm | volume error, % |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in (name for name in METHODS if name in set(rows["method"])):
            of = {m: rows.loc[(rows["method"] == name) & (rows["metric"] == m), "value"] for m in MEASURES}
            others = " | ".join(f"{of[metric].median():.1f}" for metric in ("asd", "hd95", "relative_volume_error"))
            lines.append(f"| {METHODS[name]} | {spread(of['dice'])} | {others} |")
        lines.append("")
    return lines[:-1]


def pair_table(scores: pd.DataFrame, grades: Mapping[str, str]) -> list[str]:
    """Paired comparisons of Dice by subject; Holm's correction over the rows of one group."""
    lines = [
        "| subjects | method | against | n | median Dice | median difference | 95 % | Wilcoxon p | Holm p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    there = set(scores["method"])
    pairs = [pair for pair in PAIRS if there.issuperset(pair)]
    severe = scores["subject"].map(grades).eq("severe")
    for group, rows in (("severe", scores[severe]), ("others", scores[~severe])):
        compared = [
            compare(rows[rows["method"].isin(pair)], metric="dice", label="muscle", baseline=pair[1]).iloc[0]
            for pair in pairs
        ]
        adjusted = multipletests([item["p"] for item in compared], method="holm")[1]
        for (first, second), item, p in zip(pairs, compared, adjusted, strict=True):
            lines.append(
                f"| {group} | {METHODS[first]} | {METHODS[second]} | {item['n']} |"
                f" {item['value']:.3f}, {item['baseline_value']:.3f} | {item['difference']:+.3f} |"
                f" {item['low']:+.3f} to {item['high']:+.3f} | {item['p']:.4f} | {p:.4f} |"
            )
    return lines


def chosen_table(out: Path, methods: Sequence[str]) -> list[str]:
    """How often each value was chosen over the folds."""
    lines = ["| method | points | chosen in the folds (times) | seconds |", "|---|---|---|---|"]
    seconds = json.loads((out / "seconds.json").read_text())
    for name in methods:
        folds = pd.read_csv(out / "search" / name / "folds.csv")
        grid = plan_of(name, small=False).grid
        points = len(pd.read_csv(out / "search" / name / "points.csv"))
        chosen = "; ".join(
            f"{key}: "
            + ", ".join(f"{value} ({n})" for value, n in folds[key].value_counts(sort=False).sort_index().items())
            for key in grid
        )
        lines.append(f"| {METHODS[name]} | {points} | {chosen or 'nothing to choose'} | {seconds.get(name, '')} |")
    return lines


def muscle_table(out: Path, grades: Mapping[str, str]) -> list[str]:
    """Dice of each of the 11 muscles by multi-atlas."""
    scores = pd.read_csv(out / "search" / "multiatlas" / "scores.csv")
    rows = scores[(scores["metric"] == "dice") & scores["slice"].isna()]
    severe = rows["subject"].map(grades).eq("severe")
    lines = ["| muscle | severe, median Dice | least | others, median Dice | least |", "|---|---|---|---|---|"]
    for muscle in label_set("thigh-11").names:
        cells = [
            f"{values.median():.3f} | {values.min():.3f}"
            for values in (rows[(rows["label"] == muscle) & group]["value"] for group in (severe, ~severe))
        ]
        lines.append(f"| {muscle} | {cells[0]} | {cells[1]} |")
    return lines


def put_between(path: Path, marker: str, lines: Sequence[str]) -> None:
    """Replace what stands between ``<!-- begin marker -->`` and ``<!-- end marker -->``."""
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- begin {marker} -->\n", f"<!-- end {marker} -->"
    before, found, rest = text.partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"{path}: the markers of '{marker}' are missing")
    path.write_text(before + begin + "\n".join(lines) + "\n" + end + rest.partition(end)[2], encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the cohort and of the searches")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--subjects", type=int, default=20, help="how many of the people")
    parser.add_argument("--methods", default=",".join(METHODS), help="names of the plans, separated by commas")
    parser.add_argument("--small", action="store_true", help="two values of each parameter: to try the pipeline")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.relative_to(HERE.parent)}")
    given = parser.parse_args()
    methods = [name.strip() for name in given.methods.split(",")]
    if unknown := set(methods) - set(METHODS):
        parser.error(f"no such method: {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    # A mixture that doubts itself says so at every point of every fold, here and in the workers.
    warnings.simplefilter("ignore", UserWarning)
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning"
    scores = run(given.out, methods, subjects=given.subjects, jobs=given.jobs, small=given.small)
    grades = grades_of(open_cases(given.out / "cohort" / "manifest.csv").all())
    tables = {
        "scores": score_tables(scores, grades),
        "pairs": pair_table(scores, grades),
        "chosen": chosen_table(given.out, methods),
    }
    if "multiatlas" in methods:
        tables["muscles"] = muscle_table(given.out, grades)
    for name, lines in tables.items():
        print("\n".join(["", f"## {name}", "", *lines]))
        if given.write:
            put_between(DOCUMENT, name, lines)


if __name__ == "__main__":
    main()
