"""Segment and measure thigh muscle in MR and CT: any translator can feed any segmenter.

The names below are loaded when they are first used: ``import musclekit`` loads neither torch nor SimpleITK nor
scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name -> module it is defined in.
_PUBLIC = {
    "Case": "image",
    "Contrast": "image",
    "Domain": "image",
    "Grid": "image",
    "Image": "image",
    "LabelMap": "image",
    "ProbabilityMap": "image",
    "LabelSet": "labels",
    "label_mapping": "labels",
    "label_set": "labels",
    "Refined": "compose",
    "Translated": "compose",
    "build": "registry",
    "describe": "registry",
    "names": "registry",
    "measure": "quantify",
    "read": "io",
    "read_labels": "io",
    "write_labels": "io",
}

__all__ = ["__version__", *sorted(_PUBLIC)]

if TYPE_CHECKING:
    from musclekit.compose import Refined, Translated
    from musclekit.image import Case, Contrast, Domain, Grid, Image, LabelMap, ProbabilityMap
    from musclekit.io import read, read_labels, write_labels
    from musclekit.labels import LabelSet, label_mapping, label_set
    from musclekit.quantify import measure
    from musclekit.registry import build, describe, names


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'musclekit' has no attribute '{name}'")
    return getattr(importlib.import_module(f"musclekit.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
