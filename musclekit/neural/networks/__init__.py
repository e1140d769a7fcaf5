"""Networks by name. None of them knows of files, optimisers or devices."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from musclekit.errors import ParameterError, unknown_name
from musclekit.neural.networks.first_weights import initialise
from musclekit.neural.networks.patchgan import PatchDiscriminator
from musclekit.neural.networks.resnet import ResNetGenerator

__all__ = ["PatchDiscriminator", "ResNetGenerator", "build", "initialise", "names"]

_NETWORKS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {"resnet-generator": ResNetGenerator, "patch-discriminator": PatchDiscriminator}
)


def names() -> tuple[str, ...]:
    """Names that `build` knows."""
    return tuple(_NETWORKS)


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
