from __future__ import annotations

import pytest

from musclekit.errors import ParameterError
from musclekit.neural import devices, resolve_device


def test_the_processor_is_always_there() -> None:
    assert devices()[0].name == "cpu"
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "", "CPU"])
def test_a_device_that_is_not_here_is_an_error_that_names_those_that_are(name: str) -> None:
    with pytest.raises(ParameterError, match=rf"device '{name}' is not here; there is: cpu \(\d+ threads?\)"):
        resolve_device(name)


def test_cuda_is_the_first_one_and_never_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ParameterError, match="device 'cuda' is not here"):
        resolve_device("cuda")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda number: f"card {number}")
    assert str(resolve_device("cuda")) == "cuda:0"
    assert str(resolve_device("cuda:1")) == "cuda:1"
    with pytest.raises(ParameterError, match=r"there is: cpu \(.*\), cuda:0 \(card 0\), cuda:1 \(card 1\)"):
        resolve_device("cuda:2")
