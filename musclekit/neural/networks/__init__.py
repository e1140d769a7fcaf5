"""Networks by name. None of them knows of files, optimisers or devices."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from musclekit.errors import ParameterError, unknown_name
from musclekit.neural.networks.bayesian_unet import BayesianUNet
from musclekit.neural.networks.dense_unet import DenseUNet
from musclekit.neural.networks.dropout import MonteCarloDropout, can_be_sampled, sampled
from musclekit.neural.networks.entropy_discriminator import EntropyDiscriminator
from musclekit.neural.networks.fcn import FCN8s
from musclekit.neural.networks.first_weights import initialise
from musclekit.neural.networks.manet import MANet
from musclekit.neural.networks.patchgan import PatchDiscriminator
from musclekit.neural.networks.plane_unets import PlaneUNets
from musclekit.neural.networks.resnet import ResNetGenerator
from musclekit.neural.networks.segformer import SegFormer
from musclekit.neural.networks.sizes import SizeNeeds, size_needs
from musclekit.neural.networks.unet import UNet2D, UNet3D
from musclekit.neural.networks.unet256 import UNet256

__all__ = [
    "BayesianUNet",
    "DenseUNet",
    "EntropyDiscriminator",
    "FCN8s",
    "MANet",
    "MonteCarloDropout",
    "PatchDiscriminator",
    "PlaneUNets",
    "ResNetGenerator",
    "SegFormer",
    "SizeNeeds",
    "UNet2D",
    "UNet3D",
    "UNet256",
    "build",
    "can_be_sampled",
    "initialise",
    "names",
    "sampled",
    "segmenters",
    "size_needs",
]

#: From images to logits of classes; what images each takes is told by `size_needs`.
_SEGMENTERS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        "unet-256": UNet256,
        "bayesian-unet": BayesianUNet,
        "unet-2.5d": PlaneUNets,
        "unet-2d": UNet2D,
        "unet-3d": UNet3D,
        "dense-unet": DenseUNet,
        "manet": MANet,
        "segformer": SegFormer,
        "fcn-8s": FCN8s,
    }
)
_NETWORKS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        "resnet-generator": ResNetGenerator,
        "patch-discriminator": PatchDiscriminator,
        "entropy-discriminator": EntropyDiscriminator,
        **_SEGMENTERS,
    }
)


def names() -> tuple[str, ...]:
    """Names that `build` knows."""
    return tuple(_NETWORKS)


def segmenters() -> tuple[str, ...]:
    """Names of those that segment."""
    return tuple(_SEGMENTERS)


def build(name: str, **parameters: Any) -> nn.Module:
    """Build a network from its name and parameters.

    Parameters
    ----------
    name : str
        One of `names`.
    **parameters
        Those of the network's class.

    Returns
    -------
    Module
        In float32, with the weights that torch draws for it; see `initialise`.

    Raises
    ------
    UnknownNameError
        If there is no network of that name.
    ParameterError
        If it has no such parameter, or not of that value.

    Examples
    --------
    >>> generator = build("resnet-generator", in_channels=1, out_channels=1)
    >>> sum(weights.numel() for weights in generator.parameters())
    11365633
    """
    if name not in _NETWORKS:
        raise unknown_name("network", name, _NETWORKS)
    known = list(inspect.signature(_NETWORKS[name]).parameters)
    for parameter in parameters:
        if parameter not in known:
            raise ParameterError(f"network '{name}' has no parameter '{parameter}'; it has: {', '.join(known)}")
    return _NETWORKS[name](**parameters)
