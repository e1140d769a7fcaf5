"""The 240-point grid of Gadermayr et al. with leave-one-subject-out: beside as many independent runs.

The naive search builds, fits, segments and scores with the same library functions, each point and training set by
itself. It does so for some drawn at random, and what the rest would take is extrapolated from these.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from benchmarks.timing import Row, once, table
from musclekit import registry
from musclekit.evaluation import score
from musclekit.evaluation.search import Mode, Plan, search
from musclekit.image import Case, Contrast
from musclekit.phantom import make_case

SUBJECTS = 6
DRAWN = 12
PLAN = Plan({"name": "spgc"}, "paper")


def cohort(subjects: int) -> list[Case]:
    """One leg each, left and right in turn, every second one severe."""
    return [
        make_case(
            seed,
            contrasts=(Contrast.T1W,),
            grade="severe" if seed % 2 else "minor",
            legs="left" if seed % 2 else "right",
            shape=(8, 128, 128),
            spacing=(30.0, 1.75, 1.75),
        )
        for seed in range(subjects)
    ]


def naive(point: dict[str, object], training: list[Case], tested: Case) -> float:
    """One point, one training set, one case, as a script would do it."""
    method = registry.build("spgc", **point).fit(training)
    keys = {"case_id": tested.id, "subject": tested.subject, "method": "spgc"}
    rows = score(method.segment(tested.image), tested.reference, **keys, metrics=("dice",), slices=False)
    return float(rows["value"].iloc[0])


def row(mode: Mode, cases: list[Case], drawn: int) -> Row:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        ours = once(lambda: results.append(search(PLAN, cases, Path(folder), mode=mode)))
    # Each row of the grid is a point, two subjects left out of the training set (or one), and the score on the second.
    values = results[0].grid["value"]
    points = dict(zip(results[0].points["params_id"], PLAN.points, strict=True))
    by_subject = {case.subject: case for case in cases}
    chosen = sorted(random.Random(0).sample(range(len(values)), drawn))
    apart, taken = 0.0, 0.0
    for n in chosen:
        id_, fold, subject = results[0].grid.loc[n, ["params_id", "fold", "subject"]]
        training = [case for case in cases if case.subject not in (fold, subject)]
        start = time.perf_counter()
        value = naive(points[id_], training, by_subject[subject])
        taken += time.perf_counter() - start
        apart = max(apart, abs(value - values[n]))
    if apart > 1e-12:
        raise AssertionError(f"scores of the search and of single runs differ by {apart:g}")
    peer = taken / drawn * len(values)
    return Row(
        f"search of {len(PLAN.points)} points, {len(cases)} subjects, {mode}, one process",
        ours,
        peer / 10,
        f"{len(values)} independent runs, extrapolated from {drawn} drawn at random",
        peer,
        f"{drawn} scores agree to {apart:.0e}",
    )


def rows(subjects: int = SUBJECTS, drawn: int = DRAWN) -> list[Row]:
    cases = cohort(subjects)
    return [row(mode, cases, drawn) for mode in ("paper", "nested")]


if __name__ == "__main__":
    print(table(rows()))
