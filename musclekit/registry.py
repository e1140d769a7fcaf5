"""Names to methods: what there is, how it is built, and how a built method is described.

A composition is nesting: plain data, as it stands in a TOML plan, ``{"name": "translated", "translator": {"name":
"n4"}, "segmenter": {"name": "gmm"}}``. `describe` is the inverse of `build`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from musclekit.errors import ParameterError, unknown_name
from musclekit.protocols import ProbabilisticSegmenter, Refiner, Segmenter, Translator

__all__ = ["Entry", "Kind", "build", "describe", "entry", "names", "parameters"]

Kind = Literal["segmenter", "translator", "refiner"]


@dataclass(frozen=True)
class Entry:
    """One registered method.

    Parameters
    ----------
    name : str
        What it is called on the command line and in plans.
    kind : {"segmenter", "translator", "refiner"}
        What it does.
    target : str
        ``"module:Class"``; loaded when first built.
    summary : str
        One line for ``musclekit methods``.
    needs : str
        What it needs besides an image.
    settings : mapping
        Parameters that the name stands for: of one class several methods can be made. They cannot be set.
    """

    name: str
    kind: Kind
    target: str
    summary: str
    needs: str = "nothing"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> type[Any]:
        """Import and return the class.

        Raises
        ------
        ParameterError
            If a plug-in's module or class is not there.
        """
        module, _, attribute = self.target.partition(":")
        try:
            loaded: type[Any] = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as problem:
            raise ParameterError(f"method '{self.name}' ({self.target}) cannot be loaded: {problem}") from problem
        return loaded


_NETWORK = "musclekit.translators.network:NetworkTranslator"
_TRAINED = "musclekit.segmenters.network:NetworkSegmenter"


def _trained(network: str, summary: str) -> Entry:
    return Entry(network, "segmenter", _TRAINED, summary, "a checkpoint", {"network": network})


_BUILT_IN = (
    Entry("tissue", "segmenter", "musclekit.segmenters.tissue:TissueSegmenter",
          "muscle, cortical bone, marrow, subcutaneous and intermuscular fat in CT and MR"),
    Entry("levelset", "segmenter", "musclekit.segmenters.levelset:LevelSetSegmenter",
          "muscle compartment (fascia lata) and bone by geodesic active contours"),
    Entry("gmm", "segmenter", "musclekit.segmenters.mixture:MixtureSegmenter",
          "three-component Gaussian mixture of grey values, as in Gadermayr et al."),
    Entry("graphcut", "segmenter", "musclekit.segmenters.graphcut:GraphCutSegmenter",
          "the smoothest muscle that fits the probabilities of another method (its unary), by a minimum cut"),
    Entry("spgc", "segmenter", "musclekit.segmenters.shapeprior:ShapePriorSegmenter",
          "graph cut with a shape prior: annotated thighs laid onto the scan", "annotated cases"),
    Entry("appearance", "segmenter", "musclekit.segmenters.appearance:AppearanceSegmenter",
          "how bright muscle is in annotated cases, on the scale of each image's mixture", "annotated cases"),
    Entry("multiatlas", "segmenter", "musclekit.segmenters.multiatlas:MultiAtlasSegmenter",
          "single muscles by a vote of annotated thighs laid onto the scan", "annotated cases"),
    Entry("thigh", "segmenter", "musclekit.segmenters.thigh:ThighSegmenter",
          "eleven muscles a side in CT and MR of any contrast, by a network that never saw a scan: the default"),
    Entry("threshold", "segmenter", "musclekit.segmenters.threshold:ThresholdSegmenter",
          "HU window (CT) or Otsu (MR): the baseline"),
    _trained("unet-256", "U-Net of strided convolutions down to a pixel, as in Yang et al."),
    _trained("bayesian-unet", "U-Net whose dropout is sampled: labels and how far to trust them, as in Hiasa et al."),
    _trained("unet-2.5d", "three U-Nets, one for each plane of an aligned thigh, as in Haque et al."),
    _trained("unet-2d", "plain U-Net on slices"),
    _trained("unet-3d", "plain U-Net on volumes"),
    _trained("dense-unet", "U-Net of dense blocks, as named in Kim et al."),
    _trained("manet", "ResNet encoder and a decoder with attention, as named in Kim et al."),
    _trained("segformer", "transformer encoder and a decoder of linear layers, as named in Kim et al."),
    _trained("fcn-8s", "fully convolutional VGG: the comparator of Hiasa et al."),
    Entry("ensemble", "segmenter", "musclekit.segmenters.network:EnsembleSegmenter",
          "the mean of networks that were trained alike, and how far they differ", "two checkpoints or more"),
    Entry("translated", "segmenter", "musclekit.compose:Translated",
          "a segmenter that works on a translation of the image", "a translator and a segmenter"),
    Entry("refined", "segmenter", "musclekit.compose:Refined",
          "a segmenter whose labels are refined", "a segmenter and a refiner"),
    Entry("identity", "translator", "musclekit.translators.identity:Identity",
          "the image as it is: the baseline of every translator"),
    Entry("n4", "translator", "musclekit.translators.bias:N4",
          "N4 bias field correction of MR"),
    Entry("histogram-match", "translator", "musclekit.translators.histogram:HistogramMatch",
          "the grey values of a template scan", "a template scan"),
    Entry("hard-to-easy", "translator", _NETWORK,
          "infiltrated muscle made to look healthy, by a trained network, as in Gadermayr et al.", "a checkpoint",
          {"direction": "hard-to-easy"}),
    Entry("easy-to-hard", "translator", _NETWORK,
          "healthy muscle made to look infiltrated, by a trained network", "a checkpoint",
          {"direction": "easy-to-hard"}),
    Entry("mr-to-ct", "translator", _NETWORK,
          "MR made to look like CT, by a trained network, as in Yang et al.", "a checkpoint",
          {"direction": "mr-to-ct"}),
    Entry("ct-to-mr", "translator", _NETWORK,
          "CT made to look like MR, by a trained network", "a checkpoint", {"direction": "ct-to-mr"}),
    Entry("largest-component", "refiner", "musclekit.refiners.components:LargestComponent",
          "keeps the largest connected component of each label"),
    Entry("fill-holes", "refiner", "musclekit.refiners.holes:FillHoles",
          "fills the holes of each label, slice by slice, never across labels"),
    Entry("smooth", "refiner", "musclekit.refiners.smoothing:Smooth",
          "smooths the borders of labels and keeps their areas (or volumes)"),
    Entry("bone-exclusion", "refiner", "musclekit.refiners.bone:BoneExclusion",
          "takes bone out of other labels; in MR a nested segmenter finds it"),
)  # fmt: skip


@cache
def _entries() -> dict[str, Entry]:
    """Built-in methods and those of installed plug-ins (entry points ``musclekit.segmenters`` and so on)."""
    found = {item.name: item for item in _BUILT_IN}
    kinds: tuple[Kind, ...] = ("segmenter", "translator", "refiner")
    for kind in kinds:
        for point in entry_points(group=f"musclekit.{kind}s"):
            if point.name in found:
                raise ParameterError(
                    f"the plug-in {point.value} registers '{point.name}', a name that {found[point.name].target} has"
                )
            found[point.name] = Entry(point.name, kind, point.value, f"plug-in {point.value}")
    return found


def names(kind: Kind | None = None) -> tuple[str, ...]:
    """Names of the registered methods, all or of one kind."""
    return tuple(item.name for item in _entries().values() if kind in (None, item.kind))


def entry(name: str) -> Entry:
    """Return what is registered under a name.

    Raises
    ------
    UnknownNameError
        If nothing is; the message lists the names there are.
    """
    if name not in _entries():
        raise unknown_name("method", name, _entries())
    return _entries()[name]


def parameters(name: str) -> dict[str, Any]:
    """Return the parameters of a method with their defaults (``inspect.Parameter.empty`` where there is none)."""
    # A class without a constructor of its own shows object's (*args, **kwargs), which are no parameters.
    signature = inspect.signature(entry(name).load().__init__)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    shown = {key: item for key, item in signature.parameters.items() if item.kind in named}
    return {key: item.default for key, item in shown.items() if key not in ("self", *entry(name).settings)}


#: What a parameter of a composition must be: the parameter is called after it.
_ROLES: dict[str, tuple[Kind, type[Any]]] = {
    "segmenter": ("segmenter", Segmenter),
    "translator": ("translator", Translator),
    "refiner": ("refiner", Refiner),
    "unary": ("segmenter", ProbabilisticSegmenter),
    "within": ("segmenter", Segmenter),
}


def build(name: str, **settings: Any) -> Any:
    """Build a method from its name and parameters.

    Parameters
    ----------
    name : str
        One of `names`.
    **settings
        Parameters of the method. A mapping with a ``name`` is a method of its own and is built first, and so is a bare
        name where a method is expected; ``a__b`` sets parameter ``b`` of the method that is parameter ``a``.

    Returns
    -------
    object
        A segmenter, translator or refiner, unfitted.

    Raises
    ------
    UnknownNameError
        If a name is not registered.
    ParameterError
        If a parameter does not exist, or one without a default is missing; the message lists the parameters.

    Examples
    --------
    >>> build("threshold", hu_low=-30.0).hu_low
    -30.0
    """
    known = parameters(name)
    direct: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        head, _, tail = key.partition("__")
        if head not in known:
            raise ParameterError(f"method '{name}' has no parameter '{head}'; it has: {', '.join(known) or 'none'}")
        if tail:
            nested[key] = value
        else:
            direct[key] = _build_value(key, value)
            _check_role(name, key, direct[key], known[key])
    missing = [key for key, default in known.items() if default is inspect.Parameter.empty and key not in direct]
    if missing:
        raise ParameterError(f"method '{name}' needs {', '.join(missing)}")
    method = entry(name).load()(**entry(name).settings, **direct)
    for key, value in nested.items():
        _set_nested(method, name, key, value)
    return method


def _check_role(name: str, key: str, value: Any, default: Any) -> None:
    """Refuse what cannot stand where a composition expects a segmenter, a translator or a refiner."""
    if key not in _ROLES or value is default:
        return
    kind, role = _ROLES[key]
    if (role is not ProbabilisticSegmenter and _is_registered(value, kind)) or isinstance(value, role):
        return
    what, known = str(kind), list(names(kind))
    if role is ProbabilisticSegmenter:
        what = f"{kind} that gives probabilities"
        known = [other for other in known if hasattr(entry(other).load(), "probabilities")]
    raise ParameterError(f"{key} of '{name}' must be a {what}, one of: {', '.join(known)}")


def _is_registered(method: Any, kind: Kind) -> bool:
    """Whether a method is of a registered class; of those nothing is asked that a checkpoint would have to answer."""
    target = f"{type(method).__module__}:{type(method).__qualname__}"
    return any(item.target == target and item.kind == kind for item in _entries().values())


def _build_value(key: str, value: Any) -> Any:
    if isinstance(value, Mapping) and "name" in value:
        return build(**value)
    if isinstance(value, str) and key in _ROLES:
        return build(value)
    # TOML knows lists only, and a parameter is never changed in place.
    return tuple(value) if isinstance(value, list) else value


def _set_nested(method: Any, path: str, key: str, value: Any) -> None:
    head, _, tail = key.partition("__")
    known = method.get_params(deep=False)
    if head not in known:
        raise ParameterError(f"'{path}' has no parameter '{head}'; it has: {', '.join(known) or 'none'}")
    if not tail:
        method.set_params(**{head: _build_value(head, value)})
        return
    if known[head] is None and head in _ROLES:
        raise ParameterError(f"'{path}' has no {head} of its own to set '{tail}' of: name one first, {head} = \"...\"")
    if not hasattr(known[head], "get_params"):
        raise ParameterError(f"parameter '{head}' of '{path}' is not a method: it has no '{tail}'")
    _set_nested(known[head], f"{path}.{head}", tail, value)


def describe(method: Any) -> dict[str, Any]:
    """Return the plain data from which `build` makes the same method: ``build(**describe(method))``.

    Raises
    ------
    ParameterError
        If the method is not registered, or a parameter is not plain data (an image held in memory).
    """
    target = f"{type(method).__module__}:{type(method).__qualname__}"
    # Only a class of the same name is loaded: a description must not import every method there is.
    name = f":{type(method).__qualname__}"
    found = [item for item in _entries().values() if item.target.endswith(name) and item.load() is type(method)]
    if not found:
        raise ParameterError(f"{target} is not a registered method; registered: {', '.join(names())}")
    values = method.get_params(deep=False)
    fitting = [item for item in found if all(values[key] == value for key, value in item.settings.items())]
    if not fitting:
        settings = "; ".join(f"{key}={value!r}" for item in found for key, value in item.settings.items())
        raise ParameterError(f"{target} is registered with one of these settings only: {settings}")
    described: dict[str, Any] = {"name": fitting[0].name}
    for key, value in values.items():
        if key not in fitting[0].settings:
            described[key] = _plain(value, f"{fitting[0].name}.{key}")
    return described


def _plain(value: Any, path: str) -> Any:
    if hasattr(value, "get_params"):
        return describe(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, path) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ParameterError(f"parameter {path} ({type(value).__name__}) cannot be written down as plain data")
