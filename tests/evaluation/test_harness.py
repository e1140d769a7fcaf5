from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import pytest

from musclekit import registry
from musclekit.errors import InputError, SegmentationError
from musclekit.evaluation.harness import evaluate, image_for
from musclekit.evaluation.scores import params_id
from musclekit.image import Case, Contrast, Grid, Image, LabelMap
from musclekit.labels import LabelSet, label_set

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
        progress=lambda case_id, method: seen.append((case_id, method)),
    )
    assert seen == [("a", "low"), ("a", "high"), ("b", "low"), ("b", "high")]
    volume = scores[scores["slice"].isna() & (scores["metric"] == "dice")]
    assert list(volume["value"]) == [1, 0, 1, 0]
    assert list(volume["subject"]) == ["subject a", "subject a", "subject b", "subject b"]
    assert set(scores["side"]) == {"left"}
    assert set(scores["params_id"]) == {""}


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
