from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from musclekit.errors import GeometryError, ParameterError
from musclekit.image import Contrast
from musclekit.neural import networks
from musclekit.neural.cards import SegmenterCard
from musclekit.neural.networks import can_be_sampled, size_needs
from musclekit.neural.onnx import OnnxNetwork, exported
from musclekit.neural.segmentation import Samples, class_probabilities, segment_volume
from musclekit.phantom import make_case
from musclekit.segmenters.network import NetworkSegmenter
from tests.tiny_segmenter import tiny_network, tiny_segmenter, tiny_segmenter_card

pytestmark = pytest.mark.skipif(not find_spec("onnxruntime"), reason="needs musclekit[onnx]")

IMAGE = make_case(1, shape=(6, 44, 80), spacing=(10, 5, 5), contrasts=(Contrast.CT,), reference="thigh-11").image


def trained(name: str) -> tuple[torch.nn.Module, SegmenterCard]:
    """A network whose norms have seen something: as they are drawn, they change nothing."""
    card = tiny_segmenter_card(name)
    network = tiny_network(card).train()
    needs = size_needs(network)
    sides = needs.fitted([40] * needs.dimensions)
    torch.manual_seed(1)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 1, *sides) * 2 - 1)
    return network.eval().requires_grad_(False), card


@pytest.mark.parametrize("name", networks.segmenters())
def test_a_network_answers_as_by_torch(name: str) -> None:
    network, _ = trained(name)
    by_onnx = OnnxNetwork(network)
    assert size_needs(by_onnx) == size_needs(network)
    rng = np.random.default_rng(0)
    flat = size_needs(network).dimensions == 2
    for shape in ((3, 1, 64, 64), (1, 1, 50, 70), (2, 1, 96, 33)) if flat else ((1, 1, 20, 16, 24), (1, 1, 9, 17, 8)):
        images = rng.uniform(-1, 1, shape).astype(np.float32)
        expected, found = (class_probabilities(kind, images) for kind in (network, by_onnx))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert np.array_equal(found.argmax(axis=0), expected.argmax(axis=0))


@pytest.mark.parametrize(("name", "context"), [("bayesian-unet", 0), ("unet-2d", 1)])
def test_a_scan_gets_the_same_labels(name: str, context: int, tmp_path: Path) -> None:
    path = tiny_segmenter(tmp_path / "network.pt", name, context=context)
    by_torch, by_onnx = (NetworkSegmenter(checkpoint=path, runtime=kind).segment(IMAGE) for kind in ("torch", "onnx"))
    assert np.array_equal(by_torch.voxels, by_onnx.voxels)
    assert by_onnx.grid.same_as(IMAGE.grid)


def test_the_answer_does_not_depend_on_the_batch() -> None:
    network, card = trained("bayesian-unet")
    by_onnx = OnnxNetwork(network)
    one, many = (segment_volume(by_onnx, card, IMAGE, batch=batch) for batch in (1, 4))
    assert np.array_equal(one.classes, many.classes)
    assert np.array_equal(one.answers[0][1], many.answers[0][1])


def test_a_model_is_made_once_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []

    def counted(network: torch.nn.Module, shape: tuple[int, ...]) -> bytes:
        made.append(shape)
        return exported(network, shape)

    monkeypatch.setattr("musclekit.neural.onnx.exported", counted)
    by_onnx = OnnxNetwork(trained("unet-2d")[0])
    for shape in ((3, 1, 16, 16), (1, 1, 16, 16), (2, 1, 16, 24), (5, 1, 16, 24)):
        by_onnx(torch.zeros(shape))
    assert made == [(1, 1, 16, 16), (1, 1, 16, 24)]


def test_threads_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    runtime: Any = pytest.importorskip("onnxruntime")

    def session(model: bytes, options: Any, providers: list[str]) -> Any:
        seen.append((options.intra_op_num_threads, providers))
        return plain(model, options, providers=providers)

    plain = runtime.InferenceSession
    monkeypatch.setattr(runtime, "InferenceSession", session)
    OnnxNetwork(trained("unet-2d")[0])(torch.zeros(1, 1, 16, 16))
    assert seen == [(torch.get_num_threads(), ["CPUExecutionProvider"])]


def test_it_is_the_network_without_dropout() -> None:
    network, card = trained("bayesian-unet")
    assert can_be_sampled(network)
    assert not can_be_sampled(OnnxNetwork(network))
    with pytest.raises(ParameterError, match="no dropout to sample"):
        segment_volume(OnnxNetwork(network), card, IMAGE, samples=Samples(2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"runtime": "tensorrt"}, "runtime is one of torch, onnx, not 'tensorrt'"),
        ({"samples": 5}, "runtime 'onnx' holds no dropout to sample; runtime 'torch' does"),
        ({"device": "cuda"}, "with runtime 'onnx' device is cpu, not cuda"),
        ({"precision": "bfloat16"}, "with runtime 'onnx' precision is float32, not bfloat16"),
    ],
)
def test_what_it_cannot_do_is_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tiny_segmenter(tmp_path / "network.pt")
    with pytest.raises(ParameterError, match=message):
        NetworkSegmenter(**{"checkpoint": path, "runtime": "onnx", **given}).segment(IMAGE)


def test_samples_of_predict_are_refused_too(tmp_path: Path) -> None:
    path = tiny_segmenter(tmp_path / "network.pt")
    with pytest.raises(ParameterError, match="runtime 'onnx' holds no dropout to sample"):
        NetworkSegmenter(checkpoint=path, runtime="onnx").predict(IMAGE)


def test_half_the_precision_is_refused() -> None:
    network, card = trained("unet-2d")
    with pytest.raises(ParameterError, match="in float32"):
        segment_volume(OnnxNetwork(network), card, IMAGE, precision="bfloat16")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_segmenter(tmp_path / "network.pt")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ParameterError, match=rf"needs {package}, .* pip install 'musclekit\[onnx\]'"):
        NetworkSegmenter(checkpoint=path, runtime="onnx").segment(IMAGE)
    NetworkSegmenter(checkpoint=path).segment(IMAGE)


class Wordless(torch.nn.Module):
    """Transposes by a name that torch's exporter has no word for."""

    dimensions, multiple, least = 2, 1, 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mT


def test_a_network_that_has_no_words_in_onnx_is_refused() -> None:
    network = OnnxNetwork(Wordless().eval())
    with pytest.raises(ParameterError, match=r"cannot be run by ONNX Runtime, but by torch: .*aten::mT"):
        network(torch.zeros(1, 1, 64, 64))


def test_a_size_that_does_not_suit_is_told_by_the_network() -> None:
    with pytest.raises(GeometryError, match="multiple of 4"):
        OnnxNetwork(trained("unet-2d")[0])(torch.zeros(1, 1, 18, 16))
