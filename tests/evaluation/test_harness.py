from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from sklearn.base import BaseEstimator

from musclekit import registry
from musclekit.compose import Translated
from musclekit.errors import (
    GeometryError,
    InputError,
    LeakError,
    NotFittedError,
    ParameterError,
    SegmentationError,
    UnknownNameError,
)
from musclekit.evaluation.case_scores import score_case
from musclekit.evaluation.harness import evaluate, image_for, labels_path, training_subjects
from musclekit.evaluation.scores import params_id, read_scores, write_scores
from musclekit.evaluation.splits import Fold, by_split, leave_one_subject_out, subjects_of
from musclekit.image import Case, Contrast, Grid, Image, LabelMap
from musclekit.io import read_labels
from musclekit.labels import LabelSet, label_set
from musclekit.phantom import make_case
from tests.tiny_checkpoint import tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*it is learning:UserWarning")

GRID = Grid.from_spacing((3, 10, 12), (4.0, 1.0, 1.0))


class Bright:
    """Calls muscle what is brighter than a level, and fails as it is told."""

    label_set: LabelSet = label_set("muscle")

    def __init__(self, level: float, problem: Exception | None = None, contrast: Contrast = Contrast.CT) -> None:
        self.level = level
        self.problem = problem
        self.contrasts = frozenset({contrast})

    def fit(self, cases: Sequence[Case]) -> Self:
        return self

    def segment(self, image: Image) -> LabelMap:
        if self.problem is not None and image.voxels.max() > 500:
            raise self.problem
        return LabelMap((image.voxels > self.level).astype(np.uint8), image.grid, self.label_set)


def case(id_: str, brightest: float = 100.0, reference: bool = True) -> Case:
    voxels = np.zeros(GRID.shape)
    voxels[:, 3:7, 3:8] = brightest
    truth = LabelMap((voxels > 0).astype(np.uint8), GRID, label_set("muscle")) if reference else None
    return Case(id_, f"subject {id_}", {Contrast.CT: Image(voxels, GRID, Contrast.CT)}, truth, side="left")


def test_every_method_is_scored_on_every_case() -> None:
    seen = []
    scores = evaluate(
        {"low": Bright(50), "high": Bright(2000)},
        (case(name) for name in "ab"),
        progress=lambda *told: seen.append(told),
    )
    assert seen == [(0, 0, ""), (2, 0, "a"), (4, 0, "b")]  # nobody knows how many cases a generator gives
    assert list(scores.loc[scores["metric"] == "asd", "case_id"]) == ["a", "a", "b", "b"]
    assert list(scores.loc[scores["metric"] == "asd", "method"]) == ["low", "high", "low", "high"]
    volume = scores[scores["slice"].isna() & (scores["metric"] == "dice")]
    assert list(volume["value"]) == [1, 0, 1, 0]
    assert list(volume["subject"]) == ["subject a", "subject a", "subject b", "subject b"]
    assert set(scores["side"]) == {"left"}
    assert set(scores["params_id"]) == {""}


class OneLeg(Bright, BaseEstimator):
    """A segmenter that fails unless it is told which leg it sees."""

    def __init__(self, level: float = 50, problem: Exception | None = None, side: str | None = None) -> None:
        super().__init__(level, problem)
        self.side = side

    def segment(self, image: Image) -> LabelMap:
        if self.side != "left":
            raise SegmentationError("which leg is it?")
        return super().segment(image)


def test_a_method_is_told_which_leg_a_case_shows() -> None:
    method = OneLeg()
    scores = evaluate({"m": method}, [case("a")])
    assert set(scores["status"]) == {"ok"}
    assert method.side is None


def test_a_registered_method_is_known_by_its_parameters() -> None:
    methods = {"plain": registry.build("threshold"), "lower": registry.build("threshold", hu_low=-50.0)}
    scores = evaluate(methods, [case("a")])
    assert scores.groupby("method")["params_id"].nunique().to_dict() == {"plain": 1, "lower": 1}
    assert set(scores["params_id"]) == {params_id(registry.describe(method)) for method in methods.values()}
    assert len(set(scores["params_id"])) == 2


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (SegmentationError("no bone found"), "failed: no bone found"),
        (ZeroDivisionError("a fault of ours"), "failed: unexpected ZeroDivisionError in test_harness.py:"),
    ],
)
def test_a_failure_is_a_row_and_the_others_finish(problem: Exception, message: str) -> None:
    scores = evaluate({"m": Bright(50, problem)}, [case("a"), case("b", 1000.0), case("c")])
    status = scores[scores["metric"] == "asd"].set_index("case_id")["status"]
    assert (status["a"], status["c"]) == ("ok", "ok")
    assert status["b"].startswith(message)
    assert len(scores[scores["case_id"] == "b"]) == 5


def test_a_case_without_reference_is_a_row() -> None:
    scores = evaluate({"m": Bright(50)}, [case("a", reference=False), case("b")])
    assert scores.loc[0, "status"] == "failed: case 'a' has no reference labels"
    assert (scores.loc[1:, "status"] == "ok").all()


def test_an_image_of_the_wrong_contrast_is_a_row() -> None:
    scores = evaluate({"m": Bright(50, contrast=Contrast.T1W)}, [case("a")])
    assert set(scores["status"]) == {"failed: case 'a' has ct; the method takes t1w: none of them fits"}


def test_the_image_is_the_one_that_the_method_takes() -> None:
    fat, water = (Image(np.zeros(GRID.shape), GRID, contrast) for contrast in (Contrast.FAT, Contrast.WATER))
    dixon = Case("a", "s", {Contrast.FAT: fat, Contrast.WATER: water})
    assert image_for(Bright(0, contrast=Contrast.WATER), dixon) is water
    both = Bright(0)
    both.contrasts = frozenset(Contrast)
    with pytest.raises(InputError, match=r"case 'a' has fat, water; the method takes .*: more than one of them fits"):
        image_for(both, dixon)


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(InputError, match="there is no method to evaluate"):
        evaluate({}, [case("a")])
    with pytest.raises(InputError, match="there is no case to evaluate on"):
        evaluate({"m": Bright(1)}, [])


class Learner(BaseEstimator):
    """Takes the mean brightness of what is muscle in the training cases; knows how often it was asked."""

    label_set: LabelSet = label_set("muscle")
    contrasts = frozenset({Contrast.CT})
    calls: ClassVar[list[str]] = []
    stop_after: ClassVar[float] = np.inf

    def __init__(self, *, margin: float = 50.0) -> None:
        self.margin = margin

    def fit(self, cases: Sequence[Case]) -> Self:
        for case in cases:
            if case.reference is None:
                raise InputError(f"it needs annotated cases: '{case.id}' has no reference")
        if not cases:
            raise InputError("it needs annotated cases")
        self.mean_ = float(np.mean([case.image.voxels[case.reference.mask()].mean() for case in cases]))
        self.training_subjects_ = tuple(sorted({case.subject for case in cases}))
        warnings.warn("it is learning", UserWarning, stacklevel=2)
        return self

    def segment(self, image: Image) -> LabelMap:
        if not hasattr(self, "mean_"):
            raise NotFittedError("'learner' learns from annotated cases: call fit(cases) first")
        if len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(self.training_subjects_[0])
        return LabelMap((abs(image.voxels - self.mean_) < self.margin).astype(np.uint8), image.grid, self.label_set)


@pytest.fixture(autouse=True)
def _fresh_learner() -> None:
    Learner.calls.clear()
    Learner.stop_after = np.inf


def pairs() -> list[Case]:
    """Two cases each of three subjects; those of the third are brighter than the method learns to expect."""
    images = [("a1", "a", 100.0), ("b1", "b", 110.0), ("c1", "c", 300.0), ("a2", "a", 90.0), ("b2", "b", 95.0)]
    return [replace(case(id_, level), subject=subject) for id_, subject, level in images]


def dice_of(scores: pd.DataFrame) -> dict[str, float]:
    volume = scores[scores["slice"].isna() & (scores["metric"] == "dice")]
    return dict(zip(volume["case_id"], volume["value"], strict=True))


def test_folds_are_fitted_on_their_training_cases_alone() -> None:
    cases = pairs()
    folds = leave_one_subject_out(subjects_of(cases))
    with pytest.warns(UserWarning, match="m, fold 'a': it is learning"):
        scores = evaluate({"m": Learner()}, cases, ("dice",), splits=folds)
    # Fitted on b and c, or on a and c, the method expects more than 150: only c, tested on a and b, is too bright.
    assert dice_of(scores) == {"a1": 0, "a2": 0, "b1": 0, "b2": 0, "c1": 0}
    wide = evaluate({"m": Learner(margin=80.0)}, cases, ("dice",), splits=folds)
    assert dice_of(wide) == {"a1": 1, "a2": 1, "b1": 1, "b2": 1, "c1": 0}
    assert list(wide["case_id"].unique()) == ["a1", "a2", "b1", "b2", "c1"]
    assert dict(zip(wide["case_id"], wide["fold"], strict=True)) == {
        "a1": "a", "a2": "a", "b1": "b", "b2": "b", "c1": "c"
    }  # fmt: skip


def test_the_given_method_is_not_fitted() -> None:
    method = Learner()
    evaluate({"m": method}, pairs(), splits=leave_one_subject_out(subjects_of(pairs())))
    assert not hasattr(method, "mean_")


def test_fold_by_fold_case_by_case_method_by_method() -> None:
    cases = [replace(two_legs(), id=id_, subject=id_[0]) for id_ in ("a1", "b1", "c1", "a2", "b2")]
    methods = {"plain": registry.build("threshold"), "lower": registry.build("threshold", hu_low=-50.0)}
    scores = evaluate(methods, cases, ("dice",), splits=leave_one_subject_out(subjects_of(cases)))
    assert set(scores["status"]) == {"ok"}
    volume = scores[scores["slice"].isna() & (scores["side"] == "left")]
    assert list(zip(volume["case_id"], volume["method"], strict=True)) == [
        (id_, name) for id_ in ("a1", "a2", "b1", "b2", "c1") for name in methods
    ]
    apart = evaluate(methods, cases, ("dice",))
    keys = ["case_id", "method", "side", "slice"]
    columns = [name for name in scores if name != "fold"]
    one, two = (frame[columns].sort_values(keys, ignore_index=True) for frame in (scores, apart))
    assert_frame_equal(one, two)  # a method that learns nothing gives the same with folds and without


def test_a_method_that_needs_fitting_says_so() -> None:
    with pytest.raises(NotFittedError, match=r"method 'm': 'learner' learns from annotated cases: .*; or give splits"):
        evaluate({"m": Learner()}, pairs())
    inside = Translated(translator=registry.build("identity"), segmenter=Learner())
    with pytest.raises(NotFittedError, match=r"method 'n \+ m': 'learner' learns"):
        evaluate({"n + m": inside}, pairs())


def test_a_fold_that_cannot_be_fitted_is_rows() -> None:
    cases = [*pairs()[:2], case("c", reference=False)]
    folds = [Fold("1", ("b1",), ("a1",)), Fold("2", ("c",), ("b1",))]
    scores = evaluate({"m": Learner()}, cases, ("dice", "asd"), splits=folds)
    assert set(scores.loc[scores["fold"] == "1", "status"]) == {"ok"}
    lost = scores[scores["fold"] == "2"]
    message = "failed: fitting on fold '2' failed: it needs annotated cases: 'c' has no reference"
    assert list(zip(lost["case_id"], lost["metric"], lost["status"], strict=True)) == [
        ("b1", "dice", message),
        ("b1", "asd", message),
    ]


def test_a_leak_is_an_error() -> None:
    with pytest.raises(LeakError, match="subject 'a' would be learnt from and tested on"):
        evaluate({"m": Learner()}, pairs(), splits=[Fold("1", ("a1", "b1"), ("a2",))])


def test_a_case_that_the_method_was_fitted_on_is_refused() -> None:
    cases = pairs()
    fitted = Learner(margin=80.0).fit(cases[:1])
    assert training_subjects(fitted) == {"a"}
    inside = Translated(translator=registry.build("identity"), segmenter=fitted)
    assert training_subjects(inside) == {"a"}
    assert training_subjects(registry.build("threshold")) == frozenset()
    for method in (fitted, inside):
        status = evaluate({"m": method}, cases, ("dice",)).set_index("case_id")["status"]
        assert set(status[["a1", "a2"]]) == {
            "failed: the method was fitted on subject 'a': its score would say nothing"
        }
        assert set(status[["b1", "b2", "c1"]]) == {"ok"}


def test_the_people_a_translator_learnt_from_count_too(tmp_path: Path) -> None:
    learnt = tiny_checkpoint(tmp_path / "best.pt", "ct-to-mr", training_subjects=(("a",), ("z",)))
    method = Translated(translator=registry.build("ct-to-mr", checkpoint=learnt), segmenter=registry.build("threshold"))
    assert training_subjects(method) == {"a", "z"}
    status = evaluate({"m": method}, pairs(), ("dice",)).set_index("case_id")["status"]
    assert set(status[["a1", "a2"]]) == {"failed: the method was fitted on subject 'a': its score would say nothing"}


def test_the_split_of_a_manifest_is_one_fold() -> None:
    cases = pairs()
    splits = {"a1": "train", "a2": "train", "b1": "test", "c1": None, "b2": "test"}
    scores = evaluate({"m": Learner()}, cases, ("dice",), splits=by_split(subjects_of(cases), splits))
    assert dice_of(scores) == {"b1": 1, "b2": 1}
    assert set(scores["fold"]) == {"test"}


def test_metrics_are_chosen() -> None:
    scores = evaluate({"m": Bright(50)}, [case("a")], ("hd", "volume"))
    assert list(scores["metric"]) == ["hd", "volume"]
    with pytest.raises(UnknownNameError, match="unknown metric 'dise'; did you mean 'dice'"):
        evaluate({"m": Bright(50)}, [case("a")], ("dise",))
    assert list(evaluate({"m": Bright(50)}, [case("a", reference=False)], ("hd",))["metric"]) == [""]


def test_two_processes_give_the_same_table(tmp_path: Path) -> None:
    cases = [replace(two_legs(swapped=id_ == "b"), id=f"{id_}1", subject=id_) for id_ in "abc"]
    methods = {"plain": registry.build("threshold"), "lower": registry.build("threshold", hu_low=-50.0)}
    folds = leave_one_subject_out(subjects_of(cases))
    for splits in (None, folds):
        alone = evaluate(methods, cases, splits=splits)
        folder = tmp_path / ("apart" if splits is None else "folds")
        together = evaluate(methods, cases, splits=splits, jobs=2, folder=folder, keep_labels=True)
        assert_frame_equal(alone, together, check_exact=True)
        assert set(alone["status"]) == {"ok"}
        kept = read_labels(labels_path(folder, "lower", "b1"), label_set("muscle"))
        assert kept.mask().sum() == methods["lower"].segment(cases[1].image).mask().sum() > 0
        assert (folder / "labels" / "lower" / "b1_dseg.tsv").is_file()
        write_scores(alone, tmp_path / "one.csv")
        assert_frame_equal(read_scores(tmp_path / "one.csv"), alone, rtol=1e-5)


@pytest.mark.parametrize("with_splits", [False, True])
def test_an_interrupted_evaluation_goes_on(tmp_path: Path, with_splits: bool) -> None:
    cases = pairs()
    splits = leave_one_subject_out(subjects_of(cases)) if with_splits else None
    method = Learner(margin=80.0)
    if not with_splits:
        method.fit([replace(case("z"), subject="z")])
    whole = evaluate({"m": method}, cases, splits=splits)
    Learner.calls.clear()
    Learner.stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        evaluate({"m": method}, cases, splits=splits, folder=tmp_path)
    Learner.calls.clear()
    Learner.stop_after = np.inf
    told: list[tuple[int, int, str]] = []
    again = evaluate({"m": method}, cases, splits=splits, folder=tmp_path, progress=lambda *now: told.append(now))
    assert_frame_equal(whole, again, check_exact=True)
    assert len(Learner.calls) == 1  # four of five cases had been done
    n = 3 if with_splits else 5
    assert [(done, total) for done, total, _ in told] == [(done, n) for done in range(n + 1)]
    Learner.calls.clear()
    brighter = [*cases[:-1], replace(case("b2", 60.0), subject="b")]
    if with_splits:
        with pytest.raises(
            InputError, match="holds other results: of other methods, parameters, metrics, folds or cases"
        ):
            evaluate({"m": method}, brighter, splits=splits, folder=tmp_path)
    else:
        evaluate({"m": method}, brighter, folder=tmp_path)
        assert len(Learner.calls) == 1  # the scan that has changed is done anew


def test_a_folder_of_another_evaluation_is_refused(tmp_path: Path) -> None:
    method = registry.build("threshold")
    evaluate({"m": method}, [two_legs()], folder=tmp_path)
    before = (tmp_path / "evaluation.json").read_bytes()
    for methods, metrics in (({"m": registry.build("threshold", hu_low=-9.0)}, None), ({"m": method}, ("dice",))):
        with pytest.raises(
            InputError, match="holds other results: of other methods, parameters, metrics, folds or cases"
        ):
            evaluate(methods, [case("a")], metrics, folder=tmp_path)
    assert (tmp_path / "evaluation.json").read_bytes() == before
    (tmp_path / "free" / "units").mkdir(parents=True)
    with pytest.raises(NotFittedError):
        evaluate({"m": Learner()}, [two_legs()], folder=tmp_path / "free")
    evaluate({"m": method}, [two_legs()], folder=tmp_path / "free")  # a refusal has left the folder free
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(InputError, match="choose another folder"):
        evaluate({"m": method}, [case("a")], folder=tmp_path)
    (tmp_path / "evaluation.json").unlink()  # as in the folder of a search that is not finished
    with pytest.raises(InputError, match="choose another folder"):
        evaluate({"m": method}, [case("a")], folder=tmp_path)
    assert not (tmp_path / "evaluation.json").exists()


class Shift(BaseEstimator):
    """A translator that moves the image sideways."""

    contrasts = frozenset({Contrast.T1W})
    source = target = None

    def translate(self, image: Image) -> Image:
        return image.with_voxels(np.roll(image.voxels, 6, axis=2))


def test_what_a_translation_did_not_keep_is_a_warning() -> None:
    thigh = make_case(3, contrasts=(Contrast.T1W,), legs="left", shape=(1, 64, 64), reference="muscle")
    fed = Translated(translator=Shift(), segmenter=registry.build("gmm"))
    with pytest.warns(UserWarning, match="translation: ") as caught:
        evaluate({"m": fed, "plain": registry.build("gmm")}, [thigh], ("dice",))
    told = [str(item.message) for item in caught if "translation: " in str(item.message)]
    assert any(text.startswith(f"m, case '{thigh.id}': translation: Dice of the compartment is") for text in told)
    assert not any(text.startswith("plain") for text in told)


def test_another_file_under_the_same_name_is_another_evaluation(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "best.pt")
    method = {"name": "translated", "translator": {"name": "hard-to-easy", "checkpoint": str(checkpoint)}}
    fed = registry.build(**method, segmenter={"name": "gmm"})
    thigh = make_case(3, contrasts=(Contrast.T1W,), legs="left", shape=(1, 64, 64), reference="muscle")
    evaluate({"m": fed}, [thigh], ("dice",), folder=tmp_path / "out")
    evaluate({"m": fed}, [thigh], ("dice",), folder=tmp_path / "out")
    tiny_checkpoint(checkpoint, limits=("Another one.",))
    with pytest.raises(InputError, match="holds other results"):
        evaluate({"m": fed}, [thigh], ("dice",), folder=tmp_path / "out")


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ParameterError, match="results of method 'm' cannot be kept in a folder: a Bright has no finger"
    ):
        evaluate({"m": Bright(50)}, [case("a")], folder=tmp_path)
    with pytest.raises(ParameterError, match="label maps can only be kept in a folder: give one"):
        evaluate({"m": Bright(50)}, [case("a")], keep_labels=True)


def test_two_cases_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="two cases are called 'a'"):
        evaluate({"m": Bright(50)}, [case("a"), case("a")])


def two_legs(swapped: bool = False, side: str | None = None) -> Case:
    """Two round thighs with a square muscle each; the muscle of the one at lower columns is larger."""
    grid = Grid.from_spacing((4, 80, 160), (5.0, 2.0, 2.0))
    if swapped:  # the columns run to the patient's left
        affine = grid.affine.copy()
        affine[:, 2] *= -1
        grid = Grid(grid.shape, affine)
    y, x = np.mgrid[:80, :160]
    voxels, truth = np.full(grid.shape, -1000.0), np.zeros(grid.shape, np.uint8)
    for middle, half in ((40, 12), (120, 8)):
        voxels[:, (y - 40) ** 2 + (x - middle) ** 2 < 32**2] = -100.0
        muscle = (abs(y - 40) < half) & (abs(x - middle) < half)
        voxels[:, muscle] = 60.0
        truth[:, muscle] = 1
    reference = LabelMap(truth, grid, label_set("muscle"))
    return Case("a", "s", {Contrast.CT: Image(voxels, grid, Contrast.CT)}, reference, side=side)  # type: ignore[arg-type]


@pytest.mark.parametrize("swapped", [False, True])
def test_a_scan_of_two_legs_gives_rows_a_side(swapped: bool) -> None:
    both = two_legs(swapped)
    scores = evaluate({"m": Bright(0)}, [both], ("dice", "reference_volume"))
    volume = scores[scores["slice"].isna()].set_index(["side", "metric"])["value"]
    larger, smaller = ("right", "left") if swapped else ("left", "right")
    assert volume[larger, "reference_volume"] == pytest.approx(4 * 23**2 * 0.02)
    assert volume[smaller, "reference_volume"] == pytest.approx(4 * 15**2 * 0.02)
    assert volume["left", "dice"] == volume["right", "dice"] == 1
    one_side = both.reference.with_voxels(np.where(np.arange(160) < 80, both.reference.voxels, 0))
    half = score_case(one_side, both, method="m", metrics=("dice",))
    volume = half[half["slice"].isna()].set_index("side")["value"]
    assert (volume[larger], volume[smaller]) == (1, 0)


def test_a_leg_that_nobody_annotated_is_not_scored() -> None:
    both = two_legs()
    left = both.reference.with_voxels(np.where(np.arange(160) < 80, both.reference.voxels, 0))
    scores = evaluate({"m": Bright(0)}, [replace(both, reference=left)], ("dice", "volume", "asd"))
    known = scores[scores["side"] == "left"]
    assert (known["status"] == "ok").all()
    assert (known.loc[known["metric"] == "dice", "value"] == 1).all()
    unknown = scores[scores["side"] == "right"].set_index("metric")
    assert list(unknown.index) == ["dice", "volume", "asd"]
    assert list(unknown["status"]) == ["undefined", "ok", "undefined"]
    assert unknown.loc["volume", "value"] == pytest.approx(4 * 15**2 * 0.02)
    nothing = replace(both, reference=both.reference.with_voxels(np.zeros_like(left.voxels)))
    assert set(evaluate({"m": Bright(0)}, [nothing], ("dice",))["value"]) == {0}


def test_a_failure_on_two_legs_is_rows_a_side() -> None:
    scores = evaluate({"m": Bright(0, contrast=Contrast.T1W)}, [two_legs()], ("dice",))
    assert list(scores["side"]) == ["left", "right"]
    assert scores["status"].str.startswith("failed: case 'a' has ct").all()


def test_the_side_that_the_case_names_comes_first() -> None:
    scores = evaluate({"m": Bright(0)}, [two_legs(side="left")], ("dice",))
    assert set(scores["side"]) == {"left"}
    assert len(scores[scores["slice"].isna()]) == 1


def test_a_single_leg_of_unknown_side_says_so() -> None:
    both = two_legs()
    start, stop = (0, 0, 0), (4, 80, 80)
    grid = both.image.grid.crop(start, stop)
    image = Image(both.image.voxels[:, :, :80], grid, Contrast.CT)
    one = Case("a", "s", {Contrast.CT: image}, LabelMap(both.reference.voxels[:, :, :80], grid, label_set("muscle")))
    assert set(evaluate({"m": Bright(0)}, [one], ("dice",))["side"]) == {"unknown"}


def test_a_scan_without_a_body_is_scored_as_a_whole() -> None:
    assert set(evaluate({"m": Bright(5000)}, [replace(case("a", -1000.0), side=None)])["side"]) == {""}


def test_given_label_maps_are_scored_like_those_of_a_method() -> None:
    both = two_legs()
    found = score_case(both.reference, both, method="by hand")
    assert_frame_equal(found, evaluate({"by hand": Bright(0)}, [both]))
    with pytest.raises(GeometryError, match="prediction and reference lie on two grids"):
        score_case(case("b").reference, both, method="by hand")
    with pytest.raises(InputError, match="case 'b' has no reference labels"):
        score_case(both.reference, case("b", reference=False), method="by hand")
