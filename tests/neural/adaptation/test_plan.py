"""Plans of an adaptation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from musclekit.errors import MusclekitError
from musclekit.image import Contrast
from musclekit.neural.adaptation.plan import AdaptPlan, Part, read_adapt_plan
from musclekit.schemas import check_schema

PLAN = """
kind = "adapt"
labels = "thigh-4"
source = { contrast = "water", split = "train" }
target = { contrast = "ct" }
"""
SMALL = """
view = { spacing_mm = 4, size = 64 }
generator = { width = 4, blocks = 1 }
discriminator = { width = 4, layers = 2 }
segmenter = { name = "unet-2d", width = 4, levels = 3 }
"""


def read(tmp_path: Path, text: str) -> AdaptPlan:
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return read_adapt_plan(path)


def test_what_is_left_out_is_the_papers(tmp_path: Path) -> None:
    plan = read(tmp_path, PLAN)
    assert plan.loss.weights == {"gan": 1, "cycle": 30, "identity": 0.5, "edge": 1, "segmentation": 1}
    assert plan.as_data()["loss"]["identity_on"] == "input"
    assert plan.loss.classes.class_weights == (1, 10, 1, 1, 10)
    assert plan.tune.classes == plan.loss.classes
    assert (plan.schedule.epochs, plan.schedule.batch, plan.tune.epochs) == (100, 4, 20)
    assert plan.tune.adversarial == 0.001
    assert plan.view.size == (256, 256)
    assert plan.view.spacing_mm == 0.97
    assert plan.target.scaling.as_data() == {"kind": "fixed", "low": -200, "high": 500}
    assert plan.source.scaling.as_data() == {"kind": "percentile", "low": 0, "high": 100}
    assert plan.margin_steps == {"quadriceps femoris": 6, "hamstrings": 2}
    assert plan.segmenter_parameters == {"in_channels": 1, "out_channels": 5}


def test_a_plan_comes_back_from_its_data(tmp_path: Path) -> None:
    for text in (PLAN, PLAN + SMALL + 'method = "synseg"\nstart = "other.pt"\nseed = 3\n'):
        plan = read(tmp_path, text)
        data = plan.as_data()
        check_schema({k: v for k, v in data.items() if v != ""}, "adapt", "plan")
        assert AdaptPlan.from_data(data).as_data() == data


def test_a_comparator_is_another_loss(tmp_path: Path) -> None:
    plan = read(tmp_path, PLAN + 'method = "synseg"\nloss = { cycle = 5 }\n')
    assert plan.loss.weights == {"gan": 1, "cycle": 5, "segmentation": 1}
    plan = read(tmp_path, PLAN + 'method = "accseg"\nloss = { mind = 2, class_weights = [1, 2, 3, 4, 5] }\n')
    assert plan.loss.weights == {
        "gan": 1, "contrast": 1, "contrast_identity": 1, "mind": 2, "correlation": 1, "segmentation": 1,
    }  # fmt: skip
    assert plan.loss.classes.weights == {"dice": 1}
    assert plan.tune.classes.class_weights == (1, 2, 3, 4, 5)
    assert AdaptPlan.from_data(plan.as_data()).as_data() == plan.as_data()
    plan = read(tmp_path, PLAN + 'method = "dise"\nloss = { texture = 3 }\n')
    assert plan.loss.weights["texture"] == 3
    assert plan.loss.classes == plan.tune.classes
    assert AdaptPlan.from_data(plan.as_data()).as_data() == plan.as_data()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAN.replace('"ct"', '"water"'), "source and target are both water"),
        (PLAN.replace("thigh-4", "thigh-full-sided"), "take the label set 'thigh-full'"),
        (PLAN + "loss = { class_weights = [1, 2] }\n", "class_weights are 2; background and the labels"),
        (PLAN + 'segmenter = { name = "resnet-generator" }\n', "'resnet-generator' does not segment"),
        (PLAN + 'segmenter = { name = "unet-3d" }\n', "'unet-3d' works on volumes"),
        (PLAN + "margin_steps = { gluteus = 2 }\n", "margin_steps: 'thigh-4' has no label 'gluteus'"),
        (PLAN + "view = { size = 100 }\n", "100"),
        (PLAN + "tune = { epochs = 0 }\n", "epochs"),
        (PLAN + 'pseudo = { region = "leg" }\n', "leg"),
        (PLAN + 'method = "magic"\n', "magic"),
        (PLAN + "loss = { relu = 1 }\n", "relu"),
        (PLAN + "loss = { mind = 1 }\n", "the loss of method 'joint' has no term 'mind'"),
        (PLAN + 'method = "accseg"\nloss = { cycle = 1 }\n', "the loss of method 'accseg' has no term 'cycle'"),
        (PLAN.replace("thigh-4", "thigh-5"), "thigh-5"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_before_a_scan_is_opened(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MusclekitError, match=message):
        read(tmp_path, text)


def test_parts_have_the_windows_of_the_paper() -> None:
    plan: dict[str, Any] = {"contrast": Contrast.T1W}
    assert Part(**plan).scaling.kind == "percentile"
    assert replace(Part(Contrast.CT), split="x").scaling.low == -200
