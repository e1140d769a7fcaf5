from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator

from musclekit import registry
from musclekit.checks import check_number
from musclekit.errors import (
    FormatError,
    InputError,
    LabelError,
    LeakError,
    MissingFileError,
    ModalityError,
    MusclekitError,
    ParameterError,
    SchemaError,
    SegmentationError,
    UnknownNameError,
)
from musclekit.evaluation import read_scores
from musclekit.evaluation.search import Plan, check_plan, read_plan, search
from musclekit.image import Case, Contrast, Grid, Image, LabelMap
from musclekit.io import read_labels
from musclekit.labels import LabelSet, label_set
from musclekit.metrics import dice
from musclekit.phantom import make_case
from musclekit.testing import example_cases
from musclekit.workflows.summarise import kept_labels
from tests.evaluation.conftest import Cluster
from tests.tiny_checkpoint import tiny_checkpoint

ROOT = Path(__file__).parents[2]
GRID = Grid.from_spacing((2, 12, 12), (4.0, 1.0, 1.0))
TABLES = ("scores.csv", "folds.csv", "points.csv", "grid.csv", "params.csv", "summary.json", "plan.json")


class Level(BaseEstimator):
    """Calls muscle what is brighter than the mean level of the training cases, and something more."""

    label_set: ClassVar[LabelSet] = label_set("muscle")
    contrasts: ClassVar[frozenset[Contrast]] = frozenset({Contrast.CT})
    fitted: ClassVar[Counter[tuple[frozenset[str], float]]] = Counter()
    fails_on: ClassVar[dict[float, set[str]]] = {}

    def __init__(self, *, more: float = 0.0, unused: int = 0) -> None:
        self.more = more
        self.unused = unused

    def fit(self, cases: Sequence[Case]) -> Self:
        check_number("more", self.more, least=-500)
        self.fitted[frozenset(case.subject for case in cases), self.more] += 1
        self.level_ = float(np.mean([level(case) for case in cases]))
        return self

    def segment(self, image: Image) -> LabelMap:
        if str(image.domain) in self.fails_on.get(self.more, ()):
            raise SegmentationError(f"nothing to see with {self.more:g}")
        return LabelMap((image.voxels > self.level_ + self.more).astype(np.uint8), image.grid, self.label_set)


def level(case: Case) -> float:
    """The darkest voxel of the reference."""
    assert case.reference is not None
    return float(case.image.voxels[case.reference.mask()].min())


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    entry = registry.Entry("level", "segmenter", f"{__name__}:Level", "for these tests")
    monkeypatch.setattr(registry, "_BUILT_IN", (*registry._BUILT_IN, entry))
    registry._entries.cache_clear()
    Level.fitted.clear()
    Level.fails_on.clear()
    yield
    registry._entries.cache_clear()


def case(name: str, subject: str, seed: int, reference: bool = True) -> Case:
    """Noise; what is brighter than a level of the subject's own is muscle. The name goes with the image."""
    random = np.random.default_rng(seed)
    voxels = random.uniform(-100, 100, GRID.shape).astype(np.float32)
    truth = LabelMap((voxels > random.uniform(-60, 60)).astype(np.uint8), GRID, label_set("muscle"))
    image = Image(voxels, GRID, Contrast.CT, domain=name)
    return Case(name, subject, {Contrast.CT: image}, truth if reference else None, side="left")


def cohort(n: int, cases_of: Sequence[int] = (1,)) -> list[Case]:
    return [case(f"c{s}-{k}", f"s{s:02d}", 100 * s + k) for s in range(n) for k in range(cases_of[s % len(cases_of)])]


POINTS = [-30.0, 0.0, 20.0, 45.0]
PLAN = Plan({"name": "level"}, {"more": POINTS})


def by_hand(cases: Sequence[Case], points: Sequence[float]) -> pd.DataFrame:
    """Nested leave-one-subject-out as its definition has it: one loop inside the other."""
    subjects = sorted({item.subject for item in cases})

    def mean_dice(more: float, training: set[str], tested: str) -> float:
        threshold = np.mean([level(item) for item in cases if item.subject in training]) + more
        values = [
            dice(item.image.voxels > threshold, item.reference.mask())
            for item in cases
            if item.subject == tested and item.reference is not None
        ]
        return float(np.mean(values))

    rows = []
    for left_out in subjects:
        others = set(subjects) - {left_out}
        inner = [np.mean([mean_dice(p, others - {i}, i) for i in sorted(others)]) for p in points]
        best = int(np.argmax(inner))
        rows.append((left_out, points[best], inner[best], mean_dice(points[best], others, left_out)))
    return pd.DataFrame(rows, columns=["fold", "more", "inner", "outer"])


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES} | {
        path.name: path.read_bytes() for path in sorted((folder / "labels").iterdir())
    }


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return cohort(5, (1, 2, 3))


def test_people_that_a_network_of_the_plan_learnt_from_are_refused(tmp_path: Path, cases: list[Case]) -> None:
    subject = cases[0].subject
    learnt = tiny_checkpoint(tmp_path / "best.pt", "ct-to-mr", training_subjects=((subject,), ("z",)))
    method = {
        "name": "translated",
        "translator": {"name": "ct-to-mr", "checkpoint": str(learnt)},
        "segmenter": {"name": "threshold"},
    }
    with pytest.raises(LeakError, match=f"a network of the plan has learnt from subject '{subject}'"):
        search(Plan(method, {}), cases, tmp_path / "r")


def test_a_slash_in_the_name_of_a_case_makes_no_folder(tmp_path: Path) -> None:
    named = [case(f"../s{s}/c", f"s{s}", s) for s in range(2)]
    search(Plan({"name": "level"}, {}), named, tmp_path / "out", mode="paper")
    names = {path.name for path in (tmp_path / "out" / "labels").iterdir()}
    assert names == {f".._s{s}_c_dseg{ending}" for s in range(2) for ending in (".nii.gz", ".tsv")}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert kept_labels(tmp_path / "out" / "scores.csv", "level", "../s0/c").is_file()


def test_each_fold_chooses_without_its_subject(tmp_path: Path, cases: list[Case]) -> None:
    result = search(PLAN, cases, tmp_path)
    expected = by_hand(cases, POINTS)
    assert result.folds["more"].tolist() == expected["more"].tolist()
    np.testing.assert_allclose(result.folds["inner"], expected["inner"], rtol=1e-14)
    np.testing.assert_allclose(result.folds["outer"], expected["outer"], rtol=1e-14)
    assert result.summary["value"] == pytest.approx(expected["outer"].mean(), abs=1e-6)
    assert result.summary["training_sets"] == {"outer": 5, "inner": 10}
    assert not result.summary["optimistic"]


def test_twelve_subjects_need_66_inner_training_sets(tmp_path: Path) -> None:
    many = cohort(12)
    search(PLAN, many, tmp_path)
    everyone = frozenset(item.subject for item in many)
    sizes = Counter(len(everyone - training) for training, more in Level.fitted if more == 0.0)
    assert sizes == {1: 12, 2: 66}
    chosen = [size for (training, _), size in Level.fitted.items() if len(everyone - training) == 2]
    assert set(chosen) == {1}


def test_what_the_left_out_subject_says_has_no_part_in_the_choice(tmp_path: Path, cases: list[Case]) -> None:
    before = search(PLAN, cases, tmp_path / "a").folds
    spoilt = []
    for item in cases:
        if item.subject == "s02":
            assert item.reference is not None
            item = replace(item, reference=item.reference.with_voxels(1 - item.reference.voxels))
        spoilt.append(item)
    after = search(PLAN, spoilt, tmp_path / "b").folds
    assert after.loc[2, ["params_id", "inner"]].tolist() == before.loc[2, ["params_id", "inner"]].tolist()
    assert after.loc[2, "outer"] != before.loc[2, "outer"]
    assert (after["inner"] != before["inner"]).sum() == 4


def test_paper_mode_is_optimistic_and_nested_goes_on_from_it(tmp_path: Path, cases: list[Case]) -> None:
    paper = search(PLAN, cases, tmp_path / "a", mode="paper")
    assert set(paper.folds["more"]) == {paper.points.loc[paper.points["score"].idxmax(), "more"]}
    assert paper.summary["optimistic"]
    assert paper.summary["optimism"] == 0
    said = paper.summary["value"]
    assert said == paper.summary["paper_value"] == pytest.approx(paper.points["score"].max(), abs=1e-6)
    Level.fitted.clear()
    nested = search(PLAN, cases, tmp_path / "a")
    assert {len(training) for training, _ in Level.fitted} <= {3, 4}
    assert sum(count for (training, _), count in Level.fitted.items() if len(training) == 4) <= 5
    assert nested.summary["paper_value"] == paper.summary["value"]
    assert nested.summary["optimism"] == pytest.approx(said - nested.summary["value"], abs=2e-6)
    assert nested.summary["optimism"] >= 0
    search(PLAN, cases, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_order_of_the_cases_does_not_matter(tmp_path: Path, cases: list[Case]) -> None:
    search(PLAN, cases, tmp_path / "a")
    search(PLAN, cases[::-1], tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_search_goes_on_where_it_was_stopped(tmp_path: Path, cases: list[Case]) -> None:
    search(PLAN, cases, tmp_path / "whole")

    def stop(done: float, total: float, text: str) -> None:
        if done > total / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(PLAN, cases, tmp_path / "again", progress=stop)
    kept = sorted((tmp_path / "again" / "units").iterdir())
    assert 0 < len(kept) < 15
    kept[1].write_bytes(kept[1].read_bytes()[:-40])
    Level.fitted.clear()
    search(PLAN, cases, tmp_path / "again")
    final = 5
    assert Level.fitted.total() == 4 * (5 + 10 - len(kept) + 1) + final
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_what_is_written_is_what_is_returned(tmp_path: Path, cases: list[Case]) -> None:
    result = search(PLAN, cases, tmp_path)
    pd.testing.assert_frame_equal(
        read_scores(tmp_path / "scores.csv")[["case_id", "fold", "label", "metric"]],
        result.scores[["case_id", "fold", "label", "metric"]],
        check_dtype=False,
    )
    assert (result.scores["fold"] == result.scores["subject"]).all()
    assert {"dice", "asd", "volume", "reference_volume"} <= set(result.scores["metric"])
    assert result.scores["slice"].notna().any()
    for name in ("folds", "points", "grid"):
        table = pd.read_csv(tmp_path / f"{name}.csv")
        pd.testing.assert_frame_equal(table, getattr(result, name), check_exact=True, check_dtype=False)
    assert json.loads((tmp_path / "summary.json").read_text()) == result.summary
    assert set(result.params["params_id"]) == set(result.points["params_id"])
    assert len(result.grid) == 4 * (5 + 2 * 10)
    labels = read_labels(tmp_path / "labels" / "c2-1_dseg.nii.gz", label_set("muscle"))
    (row,) = result.scores.query("case_id == 'c2-1' and metric == 'dice' and slice.isna()").itertuples()
    (tested,) = [item for item in cases if item.id == "c2-1"]
    assert tested.reference is not None
    assert dice(labels.mask(), tested.reference.mask()) == pytest.approx(row.value)
    assert (tmp_path / "labels" / "c2-1_dseg.tsv").is_file()


def test_the_grid_has_every_training_set(tmp_path: Path, cases: list[Case]) -> None:
    grid = search(PLAN, cases, tmp_path).grid
    subjects = sorted({item.subject for item in cases})
    every = {(fold, subject) for fold, subject in itertools.product(subjects, repeat=2)}
    assert set(zip(grid["fold"], grid["subject"], strict=True)) == every
    assert (grid.groupby(["fold", "subject"]).size() == 4).all()


def test_among_equals_the_first_of_the_grid_is_taken(tmp_path: Path, cases: list[Case]) -> None:
    result = search(Plan({"name": "level"}, {"more": [20.0], "unused": [3, 1, 2]}), cases, tmp_path)
    assert result.folds["unused"].tolist() == [3] * 5
    assert result.folds["ties"].tolist() == [3] * 5


def test_several_grids_follow_each_other(tmp_path: Path, cases: list[Case]) -> None:
    plan = Plan({"name": "level"}, [{"more": [20.0]}, {"unused": [3, 1]}])
    result = search(plan, cases, tmp_path)
    assert result.points[["more", "unused"]].fillna(-1).to_numpy().tolist() == [[20, -1], [-1, 3], [-1, 1]]


def test_no_grid_is_one_point(tmp_path: Path, cases: list[Case]) -> None:
    result = search(Plan({"name": "level", "more": 20.0}, {}), cases, tmp_path)
    assert len(result.points) == 1
    assert set(result.folds["ties"]) == {1}


def test_a_distance_is_chosen_by_its_least(tmp_path: Path, cases: list[Case]) -> None:
    result = search(replace(PLAN, metric="asd"), cases, tmp_path, mode="paper")
    assert result.folds.loc[0, "inner"] == result.points["score"].min()
    nested = search(replace(PLAN, metric="asd"), cases, tmp_path)
    assert nested.summary["optimism"] >= 0


def test_a_point_that_fails_is_ranked_behind_and_the_others_finish(tmp_path: Path, cases: list[Case]) -> None:
    best = search(PLAN, cases, tmp_path / "a").folds["more"].mode()[0]
    Level.fails_on = {best: {"c1-1"}}
    result = search(PLAN, cases, tmp_path / "b")
    # Where the case is left out itself, the choice knows nothing of its failure.
    assert (result.folds.query("fold != 's01'")["more"] != best).all()
    assert result.folds["n_failed"].tolist() == [0] * 5
    assert result.points.set_index("more")["n_failed"].to_dict()[best] == 1
    assert result.summary["points_with_failures"] == 1
    chosen = result.folds.set_index("fold")["more"]["s01"]
    lost = result.scores[result.scores["status"].str.startswith("failed")]
    if chosen == best:
        assert set(lost["case_id"]) == set(result.summary["failed_cases"]) == {"c1-1"}
        assert lost["status"].unique().tolist() == [f"failed: nothing to see with {best:g}"]
        assert not (tmp_path / "b" / "labels" / "c1-1_dseg.nii.gz").exists()


def test_a_case_on_which_all_fails_is_a_row_and_no_more(tmp_path: Path, cases: list[Case]) -> None:
    Level.fails_on = {more: {"c4-0", "c4-1"} for more in POINTS}
    result = search(PLAN, cases, tmp_path)
    rows = result.scores.query("case_id == 'c4-0'")
    assert len(rows)
    assert rows["status"].str.startswith("failed: nothing to see with").all()
    assert result.summary["failed_cases"] == ["c4-0", "c4-1"]
    assert result.scores.query("case_id != 'c4-0' and case_id != 'c4-1'")["status"].isin(["ok", "undefined"]).all()
    assert np.isfinite(result.summary["value"])


def test_when_nothing_works_it_stops_early_and_tries_again(tmp_path: Path, cases: list[Case]) -> None:
    Level.fails_on = {more: {item.id for item in cases} for more in POINTS}
    with pytest.raises(SegmentationError, match="nothing works on the first two subjects: nothing to see with -30"):
        search(PLAN, cases, tmp_path)
    assert max(len(training) for training, _ in Level.fitted) == 4
    assert len({training for training, _ in Level.fitted}) == 2
    assert not list((tmp_path / "units").iterdir())
    Level.fails_on = {}
    search(PLAN, cases, tmp_path)


def test_a_parameter_that_is_refused_while_segmenting_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cases: list[Case]
) -> None:
    def refuses(self: Level, image: Image) -> LabelMap:
        raise ParameterError("more is more than this image bears")

    monkeypatch.setattr(Level, "segment", refuses)
    with pytest.raises(ParameterError, match=r"more is more than this image bears \(more = -30.0\)"):
        search(PLAN, cases, tmp_path)
    assert not (tmp_path / "scores.csv").exists()


def test_progress_ends_at_all_the_work_and_names_the_best(tmp_path: Path, cases: list[Case]) -> None:
    told: list[tuple[float, float, str]] = []
    result = search(PLAN, cases, tmp_path, progress=lambda *now: told.append(now))
    assert told[0][:2] == (0.0, told[0][1])
    assert told[-1][0] == told[-1][1]
    assert [now[0] for now in told] == sorted(now[0] for now in told)
    assert told[-1][2].startswith("best so far: dice 0.")
    assert f"with more = {result.folds['more'].mode()[0]}" in told[-1][2]


def test_warnings_of_methods_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cases: list[Case]) -> None:
    import warnings

    fit = Level.fit

    def warns(self: Level, given: Sequence[Case]) -> Level:
        warnings.warn("a case was left out", UserWarning, stacklevel=1)
        return fit(self, given)

    monkeypatch.setattr(Level, "fit", warns)
    for _ in range(2):
        with pytest.warns(UserWarning, match="level: a case was left out") as caught:
            search(PLAN, cases, tmp_path)
        assert len(caught) == 1


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "error", "words"),
    [
        (Plan({"name": "levle"}, {}), UnknownNameError, "unknown method 'levle'; did you mean 'level'?"),
        (Plan({"name": "level"}, {"les": [1]}), ParameterError, "has no parameter 'les'; it has: more, unused"),
        (Plan({"name": "level"}, {"more": []}), ParameterError, "the grid gives no values of more"),
        (Plan({"name": "level"}, {"more": "12"}), ParameterError, "the grid gives more = '12': give a list"),
        (Plan({"name": "level"}, {"more": 12}), ParameterError, "the grid gives more = 12: give a list"),  # type: ignore[dict-item]
        (Plan({"name": "level"}, {"more": [1, 2, 1]}), ParameterError, 'names a point twice: {"more": 1}'),
        (Plan({"name": "level"}, {}, metric="dise"), UnknownNameError, "unknown metric 'dise'; did you mean 'dice'?"),
        (Plan({"name": "level"}, {}, metric="volume"), ParameterError, "neither more nor less is better; use dice"),
        (Plan({"name": "level"}, "papers"), UnknownNameError, "unknown grid 'papers'; did you mean 'paper'?"),
        (Plan({"name": "level"}, "paper"), ParameterError, "grid 'paper': the method has none of smoothness, sigma"),
        (Plan({"name": "n4"}, {}), ParameterError, "'n4' is no segmenter; a search needs one of: "),
        (Plan({"name": "level"}, {"more": [1.0, -600.0]}), ParameterError, r"more must .* \(more = -600.0\)"),
        (Plan({"name": "level"}, {}, label="femur"), LabelError, "there is no label 'femur' to choose by; there are"),
        (
            Plan({"name": "translated", "translator": {"name": "n4"}, "segmenter": {"name": "level"}}, {}),
            ModalityError,
            "method 'translated' takes no image at all: its segmenter cannot take what its translator gives",
        ),
    ],
)
def test_a_bad_plan_is_refused_before_any_work(
    tmp_path: Path, cases: list[Case], plan: Plan, error: type[MusclekitError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        search(plan, cases, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda cases: cases[:1], "needs at least 3 subjects .* not 1$"),
        (lambda cases: cases[:3], "needs at least 3 subjects .* not 2; with mode 'paper' two are enough"),
        (lambda cases: [*cases, cases[0]], "two cases are called 'c0-0'"),
        (lambda cases: [*cases, case("x", "sx", 1, reference=False)], "case 'x' has no reference; a search needs"),
        (lambda cases: [*cases, _mr(cases[0])], "case 'mr' has t1w; the method takes ct: none of them fits"),
    ],
)
def test_bad_cases_are_refused_before_any_work(tmp_path: Path, cases: list[Case], change: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        search(PLAN, change(cases), tmp_path)
    assert not list(tmp_path.iterdir())


def _mr(given: Case) -> Case:
    image = replace(given.image, contrast=Contrast.T1W)
    return replace(given, id="mr", images={Contrast.T1W: image})


def test_two_subjects_are_enough_for_paper_mode(tmp_path: Path, cases: list[Case]) -> None:
    assert len(search(PLAN, cases[:3], tmp_path, mode="paper").folds) == 2
    with pytest.raises(InputError, match="needs at least 2 subjects"):
        search(PLAN, cases[:1], tmp_path / "b", mode="paper")
    with pytest.raises(ParameterError, match="mode must be nested or paper, not 'both'"):
        search(PLAN, cases, tmp_path / "c", mode="both")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("plan", "drop", "words"),
    [
        (Plan({"name": "level"}, {"more": [0.0]}), 0, "points"),
        (Plan({"name": "level", "unused": 1}, PLAN.grid), 0, "method"),
        (replace(PLAN, metric="jaccard"), 0, "metric"),
        (replace(PLAN, label="muscle"), 0, "label"),
        (PLAN, 1, "cases"),
    ],
)
def test_results_of_another_plan_are_never_mixed(
    tmp_path: Path, cases: list[Case], plan: Plan, drop: int, words: str
) -> None:
    search(PLAN, cases, tmp_path, mode="paper")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=rf"holds the results of another search \({words} differ\)"):
        search(plan, cases[drop:], tmp_path, mode="paper")
    assert contents(tmp_path) == before


def test_a_refusal_leaves_the_folder_free(tmp_path: Path, cases: list[Case]) -> None:
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        search(PLAN, cases, tmp_path, scheduler="tcp://nowhere:x")
    search(Plan({"name": "level"}, {"more": [0.0]}), cases, tmp_path, mode="paper")


def test_units_without_their_plan_are_refused(tmp_path: Path, cases: list[Case]) -> None:
    search(PLAN, cases, tmp_path, mode="paper")
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(FormatError, match=r"plan\.json: missing or damaged, though there are results beside it"):
        search(PLAN, cases, tmp_path, mode="paper")


# --- plans -----------------------------------------------------------------------------------------------------------

PAPER = """
kind = "search"
metric = "dice"
label = "muscle"
[method]
name = "translated"
[method.translator]
name = "n4"
[method.segmenter]
name = "spgc"
[grid]
segmenter__smoothness = [0.001, 0.002, 0.05, 0.1, 0.2, 0.5]
segmenter__sigma = [1.0, 2.0]
segmenter__prior_weight = [0.1, 0.2, 0.5, 0.7, 1.0]
segmenter__neutral_probability = [0.2, 0.3, 0.4, 0.5]
"""


def test_the_grid_of_the_paper_has_240_points(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PAPER)
    plan = read_plan(tmp_path / "plan.toml")
    assert len(plan.points) == 6 * 2 * 5 * 4 == 240
    assert plan.points[1]["segmenter__smoothness"] == 0.002, "the last parameter by name changes first"
    named = 'grid = "paper"' + PAPER.split("[grid]")[0]
    (tmp_path / "named.toml").write_text(named)
    assert read_plan(tmp_path / "named.toml").points == plan.points
    (tmp_path / "fixed.toml").write_text(named.replace('"paper"', '"fixed"'))
    assert len(read_plan(tmp_path / "fixed.toml").points) == 320
    assert len(Plan({"name": "graphcut"}, "paper").points) == 12


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (None, MissingFileError, "plan.toml: no such file"),
        ("[method", FormatError, "not TOML"),
        ("[grid]\nmore = [1]", SchemaError, "'method' is a required property"),
        (
            '[method]\nname = "level"\n[grid]\nmore = "1"',
            SchemaError,
            r"at \[grid\]\[more\]: '1' is not of type 'array'",
        ),
        ('[method]\nname = "level"\n[grid]\nmore = []', SchemaError, r"at \[grid\]\[more\]"),
        ('grid = "big"\n[method]\nname = "level"', SchemaError, r"at \[grid\]: 'big' is not one of"),
        ('kind = "train"\n[method]\nname = "level"', SchemaError, "'search' was expected"),
        ('metrics = "dice"\n[method]\nname = "level"', SchemaError, "'metrics' was unexpected"),
        ('[method]\nname = "level"\n[[grid]]\nmore = 3', SchemaError, r"at \[grid\]\[0\]\[more\]"),
        ('[method]\nname = "level"\n[grid]\nlese = [3]', ParameterError, "it has: more, unused"),
    ],
)
def test_a_plan_that_cannot_be_read(tmp_path: Path, text: str | None, error: type[MusclekitError], words: str) -> None:
    if text is not None:
        (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(error, match=words):
        read_plan(tmp_path / "plan.toml")


def test_a_plan_is_checked_without_cases() -> None:
    check_plan(Plan({"name": "level"}, {"more": [1.0], "unused": [1, 2]}))


def test_processes_give_the_same_bytes(tmp_path: Path) -> None:
    annotated = example_cases("muscle")
    plan = Plan({"name": "graphcut"}, {"smoothness": [0.1, 0.5], "sigma": [1.0]})
    for jobs in (1, 2):
        search(plan, annotated, tmp_path / str(jobs), jobs=jobs)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


@pytest.mark.slow
def test_a_search_that_is_killed_is_gone_on_with(tmp_path: Path) -> None:
    annotated = example_cases("muscle", subjects=4)
    plan = Plan({"name": "spgc"}, {"smoothness": [0.1, 0.5], "prior_weight": [0.1, 0.5]})
    search(plan, annotated, tmp_path / "whole")
    code = (
        "from musclekit.evaluation.search import Plan, search; from musclekit.testing import example_cases;"
        f"cases = example_cases('muscle', subjects=4); plan = Plan({plan.method!r}, {plan.grid!r});"
        f"search(plan, cases, Path({str(tmp_path / 'r')!r}))"
    )
    running = subprocess.Popen([sys.executable, "-c", f"from pathlib import Path; {code}"], cwd=ROOT)
    limit = time.monotonic() + 100
    while len(list((tmp_path / "r" / "units").glob("[!.]*.zip"))) < 4:
        assert running.poll() is None, "it ended early"
        assert time.monotonic() < limit
        time.sleep(0.01)
    running.kill()
    running.wait(10)
    assert not (tmp_path / "r" / "scores.csv").exists()
    search(plan, annotated, tmp_path / "r")
    assert contents(tmp_path / "r") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes_though_a_worker_is_killed(tmp_path: Path, cluster: Cluster) -> None:
    annotated = example_cases("muscle", subjects=5)
    plan = Plan({"name": "spgc"}, {"smoothness": [0.1, 0.5], "prior_weight": [0.1, 0.5]})
    search(plan, annotated, tmp_path / "here")

    def kill_one_half_way(done: float, total: float, text: str) -> None:
        if done > total / 2 and cluster.workers[0].poll() is None:
            cluster.workers[0].kill()
            cluster.workers[0].wait(10)

    search(plan, annotated, tmp_path / "there", scheduler=cluster.address, progress=kill_one_half_way)
    assert cluster.workers[0].poll() is not None
    assert cluster.workers[1].poll() is None
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_a_scan_of_two_legs_is_chosen_by_the_mean_of_its_sides(tmp_path: Path) -> None:
    scans = [
        make_case(seed, contrasts=(Contrast.T1W,), shape=(2, 96, 160), spacing=(30.0, 3.0, 3.0), reference="muscle")
        for seed in range(3)
    ]
    result = search(Plan({"name": "graphcut"}, {"smoothness": [0.1, 0.3]}), scans, tmp_path)
    dices = result.scores.query("metric == 'dice' and slice.isna()")
    assert dices["side"].value_counts().to_dict() == {"left": 3, "right": 3}
    np.testing.assert_allclose(result.folds["outer"], dices.groupby("subject")["value"].mean(), rtol=1e-14)
