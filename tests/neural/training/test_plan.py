from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from musclekit.errors import FormatError, InputError, MissingFileError, ParameterError, SchemaError
from musclekit.image import Contrast, Domain
from musclekit.neural.training.plan import TrainPlan, read_train_plan
from musclekit.neural.windows import CT_WINDOW, MR_WINDOW, Window
from musclekit.schemas import check_schema
from tests.neural.training.examples import TINY

LEAST = """
kind = "train"
source = { contrast = "t1w", name = "hard" }
target = { contrast = "t1w", name = "easy" }
"""


def read(tmp_path: Path, text: str) -> TrainPlan:
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return read_train_plan(path)


def test_what_is_left_out_is_that_of_the_papers(tmp_path: Path) -> None:
    plan = read(tmp_path, LEAST)
    assert plan == TrainPlan.from_data(tomllib.loads(LEAST))
    assert plan.source.domain == Domain(Contrast.T1W, "hard")
    assert plan.generator == {"name": "resnet-generator", "width": 64, "blocks": 9}
    assert plan.loss.weights == {"gan": 1, "cycle": 1, "identity": 1, "relu": 0.5}
    assert (plan.schedule.epochs, plan.schedule.batch, plan.schedule.learning_rate) == (200, 1, 2e-4)
    assert (plan.precision, plan.channels_last, plan.compile, plan.tensorboard) == ("float32", False, False, False)


def test_windows_follow_the_contrast(tmp_path: Path) -> None:
    text = 'kind = "train"\nsource = { contrast = "t1w" }\n[target]\ncontrast = "ct"\n'
    plan = read(tmp_path, text)
    assert (plan.source.scaling, plan.target.scaling) == (MR_WINDOW, CT_WINDOW)
    plan = read(tmp_path, text + 'window = { kind = "fixed", low = -100, high = 250 }\n')
    assert plan.target.scaling == Window("fixed", -100, 250)


@pytest.mark.parametrize(
    ("contrast", "direction"),
    [("t1w", "darker"), ("fat", "darker"), ("mr", "darker"), ("ct", "brighter"), ("water", "brighter")],
)
def test_where_fat_is_dark_it_becomes_muscle_by_growing_brighter(contrast: str, direction: str, tmp_path: Path) -> None:
    text = LEAST.replace("t1w", contrast)
    assert read(tmp_path, text).loss.relu_direction == direction
    given = read(tmp_path, f"{text}loss = {{ relu_direction = 'darker' }}\n")
    assert given.loss.relu_direction == "darker"


def test_there_is_no_direction_between_two_contrasts(tmp_path: Path) -> None:
    text = 'kind = "train"\nsource = { contrast = "t1w" }\ntarget = { contrast = "ct" }\n'
    assert read(tmp_path, text).loss.weights == {"gan": 1, "cycle": 1, "identity": 1}
    with pytest.raises(ParameterError, match="those of t1w and ct have no order in common: leave it out"):
        read(tmp_path, f"{text}loss = {{ relu = 0.5 }}\n")


def test_the_manifest_of_a_plan_is_relative_to_it(tmp_path: Path) -> None:
    plan = read(tmp_path, f"cases = 'cases/manifest.csv'\n{LEAST}")
    assert plan.cases == tmp_path / "cases" / "manifest.csv"
    check_schema(plan.as_data(), "train", "plan")


@pytest.mark.parametrize("plan", [TINY, TrainPlan.from_data(tomllib.loads(LEAST + "limits = ['none']\nseed = 3\n"))])
def test_a_plan_is_plain_data_and_comes_back(plan: TrainPlan) -> None:
    data = plan.as_data()
    check_schema(data, "train", "plan")
    assert TrainPlan.from_data(data).as_data() == data


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("epochs = 3", "Additional properties are not allowed ('epochs' was unexpected)"),
        ("loss = { cycle = -1 }", "at [loss][cycle]: -1 is less than the minimum of 0"),
        ("precision = 'float16'", "at [precision]: 'float16' is not one of"),
        ("loss = { gan = 0, cycle = 0, identity = 0, relu = 0 }", "every weight of the loss is 0"),
        ("schedule = { constant = 0, decay = 0 }", "constant and decay are both 0: there is no epoch to train in"),
        ("slices = { size = 130 }", "images of 130 x 130 pixels do not suit the generator"),
        ("slices = { size = 16 }", "images of 16 x 16 pixels are too small for the discriminator"),
        ("generator = { name = 'unet' }", "unknown network 'unet'"),
        ("generator = { depth = 3 }", "network 'resnet-generator' has no parameter 'depth'"),
        ("generator = { width = 0 }", "width must be a whole number of at least 1, not 0"),
    ],
)
def test_a_plan_that_cannot_be_trained_is_refused(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, LEAST + more)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ({}, "source and target are both hard t1w: nothing tells them apart"),
        ({"name": "easy", "grades": ["severe"]}, "grade 'severe' stands in the source and in the target"),
    ],
)
def test_domains_must_differ(domain: dict[str, Any], message: str, tmp_path: Path) -> None:
    target = {"contrast": "t1w", "name": "hard", **domain}
    lines = "\n".join(f"{name} = {value!r}" for name, value in target.items())
    with pytest.raises(InputError) as caught:
        read(
            tmp_path,
            f"kind = 'train'\n[source]\ncontrast = 't1w'\nname = 'hard'\ngrades = ['severe']\n[target]\n{lines}",
        )
    assert message in str(caught.value)


def test_what_is_no_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file"):
        read_train_plan(tmp_path / "none.toml")
    with pytest.raises(FormatError, match="not TOML"):
        read(tmp_path, "kind")
    with pytest.raises(SchemaError, match="'train' was expected"):
        read(tmp_path, LEAST.replace('"train"', '"search"'))


def test_a_domain_names_itself() -> None:
    assert str(TINY.source) == "hard t1w"
    assert (
        str(TrainPlan.from_data({"kind": "train", "source": {"contrast": "ct"}, "target": {"contrast": "t1w"}}).source)
        == "ct"
    )
