from __future__ import annotations

from pathlib import Path

import pytest

from musclekit import registry
from musclekit.errors import ParameterError, UnknownNameError
from musclekit.image import Contrast
from musclekit.testing import example_image


def test_every_entry_loads_and_is_one_of_its_kind() -> None:
    verbs = {"segmenter": "segment", "translator": "translate", "refiner": "refine"}
    for name in registry.names():
        item = registry.entry(name)
        assert callable(getattr(item.load(), verbs[item.kind])), name
        assert item.summary


@pytest.mark.parametrize("name", ["tissue", "levelset", "gmm", "threshold", "n4", "largest-component", "fill-holes"])
def test_describe_is_the_inverse_of_build(name: str) -> None:
    described = registry.describe(registry.build(name))
    assert registry.describe(registry.build(**described)) == described
    assert described["name"] == name


def test_compositions_nest() -> None:
    plan = {
        "name": "refined",
        "segmenter": {"name": "translated", "translator": {"name": "n4"}, "segmenter": {"name": "gmm"}},
        "refiner": {"name": "fill-holes"},
    }
    method = registry.build(**plan, segmenter__translator__spline_mm=80.0)
    assert method.segmenter.translator.spline_mm == 80.0
    described = registry.describe(method)
    assert described["segmenter"]["translator"]["spline_mm"] == 80.0
    assert registry.describe(registry.build(**described)) == described


def test_an_unknown_method_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(UnknownNameError) as caught:
        registry.build("treshold")
    assert "unknown method 'treshold'; did you mean 'threshold'?" in str(caught.value)
    assert "tissue" in str(caught.value)


def test_an_unknown_parameter_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(
        ParameterError, match="method 'n4' has no parameter 'spine_mm'; it has: spline_mm, n_iterations"
    ):
        registry.build("n4", spine_mm=3)
    with pytest.raises(ParameterError, match="has no parameter 'nothing'"):
        registry.build("translated", translator={"name": "n4"}, segmenter={"name": "threshold"}, translator__nothing=1)
    with pytest.raises(ParameterError, match="is not a method: it has no 'x'"):
        registry.build("n4", spline_mm__x=1, n_iterations=(3,))


def test_a_part_can_be_named_by_its_bare_name() -> None:
    method = registry.build("spgc", unary="appearance", unary__per="slice")
    assert registry.describe(method)["unary"] == {**registry.describe(registry.build("appearance")), "per": "slice"}
    with pytest.raises(UnknownNameError, match="unknown method 'appearence'; did you mean 'appearance'"):
        registry.build("spgc", unary="appearence")
    with pytest.raises(ParameterError, match="unary of 'spgc' must be a segmenter that gives probabilities, one of"):
        registry.build("spgc", unary="threshold")


def test_a_part_is_named_before_its_checkpoint_is(tmp_path: Path) -> None:
    path = str(tmp_path / "none.pt")
    settings = {"translator": "hard-to-easy", "translator__checkpoint": path, "segmenter": "gmm"}
    assert registry.build("translated", **settings).translator.checkpoint == path
    assert registry.build("translated", translator="hard-to-easy", segmenter="gmm").translator.checkpoint is None


def test_a_parameter_of_a_part_that_was_not_named() -> None:
    with pytest.raises(ParameterError, match="'spgc' has no unary of its own to set 'per' of: name one first, unary ="):
        registry.build("spgc", unary__per="slice")


def test_a_missing_part_is_named() -> None:
    with pytest.raises(ParameterError, match="method 'translated' needs translator, segmenter"):
        registry.build("translated")


def test_an_image_in_memory_has_no_plain_description() -> None:
    method = registry.build("histogram-match", template=example_image(Contrast.CT))
    with pytest.raises(ParameterError, match=r"histogram-match\.template \(Image\) cannot be written down"):
        registry.describe(method)
    assert registry.describe(registry.build("histogram-match", template=Path("a.nii.gz")))["template"] == "a.nii.gz"


def test_a_stranger_cannot_be_described() -> None:
    with pytest.raises(ParameterError, match="is not a registered method"):
        registry.describe(object())


def test_a_plug_in_that_is_not_there_says_so() -> None:
    gone = registry.Entry("mine", "segmenter", "no_such_package.module:Mine", "a plug-in")
    with pytest.raises(ParameterError, match=r"method 'mine' \(no_such_package\.module:Mine\) cannot be loaded"):
        gone.load()
    with pytest.raises(ParameterError, match="cannot be loaded"):
        registry.Entry("mine", "segmenter", "musclekit.compose:Mine", "a plug-in").load()


@pytest.mark.parametrize("translator", ["gmm", {"name": "gmm"}, 3])
def test_what_is_no_translator_cannot_stand_for_one(translator: object) -> None:
    with pytest.raises(ParameterError, match="translator of 'translated' must be a translator, one of: identity, n4"):
        registry.build("translated", translator=translator, segmenter={"name": "threshold"})
