"""Networks run by ONNX Runtime, on processors: an extra, ``pip install 'musclekit[onnx]'``."""

from __future__ import annotations

import warnings
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from musclekit.errors import ParameterError
from musclekit.neural.networks import size_needs

__all__ = ["OnnxNetwork", "exported", "session"]

#: The latest that torch's exporter by tracing writes without a conversion, and older runtimes read too.
OPSET = 17
#: What the exporter and the runtime are; torch has none of them.
PACKAGES = ("onnx", "onnxruntime")
#: Sizes of images that a network is kept ready for.
MOST_SIZES = 4


class OnnxNetwork(nn.Module):
    """A network that answers by ONNX Runtime what it would answer by torch, but for the last digits.

    It is used as the network itself, and not sampled: an export holds no dropout.

    Parameters
    ----------
    network : Module
        One that segments, in float32 on the processor, set to evaluate.

    Attributes
    ----------
    dimensions, multiple, least : int
        What images it takes: those of the network.

    Raises
    ------
    ParameterError
        If the packages are not there, or it is no network that segments.

    Notes
    -----
    Images go through one by one, with as many threads as torch has. The network is exported anew for each size of
    image, in well under a second: fixed sizes hold for every network, whatever it computes from them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        for name in PACKAGES:
            _package(name)
        needs = size_needs(network)
        self.dimensions, self.multiple, self.least = needs.dimensions, needs.multiple, needs.least
        # In the closure, not a part of this module: its dropout cannot be reached, and must not seem to be.
        self._session = lru_cache(MOST_SIZES)(lambda shape, threads: session(exported(network, shape), threads))
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits.

        Parameters
        ----------
        images : Tensor, shape (n, channels, ...)
            In float32, on the processor, of a size that the network takes.

        Returns
        -------
        Tensor, shape (n, classes, ...)

        Raises
        ------
        ParameterError
            If they are elsewhere, work is to be done in bfloat16, or the network cannot be exported.
        GeometryError
            If the network does not take images of that size.
        """
        if images.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            raise ParameterError("ONNX Runtime works on the processor in float32: leave device and precision out")
        ready = self._session((1, *images.shape[1:]), torch.get_num_threads())
        given = images.contiguous().numpy()
        return torch.from_numpy(np.concatenate([ready.run(None, {"images": image[None]})[0] for image in given]))


def exported(network: nn.Module, shape: tuple[int, ...]) -> bytes:
    """Return a network as an ONNX model.

    Parameters
    ----------
    network : Module
        In float32 on the processor, set to evaluate.
    shape : tuple of int
        Of its images, (n, channels, ...): the model takes no others. They are called ``images``, what comes out
        ``logits``.

    Raises
    ------
    ParameterError
        If ONNX has no word for a part of it, or the packages are not there.
    GeometryError
        If it does not take images of that shape.
    """
    _package("onnx")
    try:
        with TemporaryDirectory() as folder, warnings.catch_warnings():
            # That it will be replaced: the exporter to come takes 20 times as long and two more packages. And that
            # sizes become fixed, which they are meant to.
            warnings.simplefilter("ignore")
            model = Path(folder) / "model.onnx"
            torch.onnx.export(
                network,
                (torch.zeros(shape),),
                model,
                dynamo=False,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["logits"],
            )
            return model.read_bytes()
    except torch.onnx.errors.OnnxExporterError as problem:
        reason = " ".join(str(problem).split())[:200]
        raise ParameterError(
            f"{type(network).__name__} cannot be run by ONNX Runtime, but by torch: {reason}"
        ) from problem


def session(model: bytes, threads: int) -> Any:
    """Return what runs an ONNX model on the processor, an ``onnxruntime.InferenceSession``.

    Parameters
    ----------
    model : bytes
        As `exported` returns it.
    threads : int
        To work with.

    Raises
    ------
    ParameterError
        If the package is not there.
    """
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    # Waiting threads would take the processors from those of torch, and from other processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ParameterError(
            f"runtime 'onnx' needs {name}, which is not installed: pip install 'musclekit[onnx]'"
        ) from None
