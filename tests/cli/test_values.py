from __future__ import annotations

import pytest

from musclekit.cli.values import parse_settings
from musclekit.errors import ParameterError


def test_values_have_the_type_they_look_like() -> None:
    given = ["a=1", "b=0.5", "c=true", "d=slice", 'e="1"', "f=[20, 10]", "g=x=y", " h = 2 "]
    assert parse_settings(given) == {
        "a": 1, "b": 0.5, "c": True, "d": "slice", "e": "1", "f": [20, 10], "g": "x=y", "h": 2,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["a", "=3", " =3"])
def test_what_is_no_setting_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="--set takes key=value, not"):
        parse_settings([text])


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(ParameterError, match="--set gives 'a' twice"):
        parse_settings(["a=1", "a=2"])
