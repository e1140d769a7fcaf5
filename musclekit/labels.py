"""Label sets: what the ids of a label map mean, and the maps that lead from one set to another.

The sets themselves are data (``data_schemas/labels.json``); this module reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from musclekit.errors import LabelError, unknown_name
from musclekit.schemas import read_json

__all__ = ["Label", "LabelMapping", "LabelSet", "Side", "label_mapping", "label_set", "label_set_names"]

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
SIDED_SUFFIX = "-sided"


@dataclass(frozen=True)
class Label:
    """One structure.

    Parameters
    ----------
    id : int
        Value in the label map, 1 or more.
    name : str
        Anatomical name in lower case, the same on both sides.
    abbreviation : str
        Short name for tables, the same on both sides.
    color : str
        ``#rrggbb``.
    group : str, optional
        Functional group (``"extensor"``, ``"flexor"``, ``"adductor"`` ...), where the structure has one.
    side : {"left", "right"}, optional
        Set in sided label sets only.
    """

    id: int
    name: str
    abbreviation: str
    color: str
    group: str | None = None
    side: Side | None = None

    @property
    def full_name(self) -> str:
        """Name with its side: ``"sartorius left"``."""
        return f"{self.name} {self.side}" if self.side else self.name


@dataclass(frozen=True)
class LabelSet:
    """An ordered set of exclusive labels.

    Parameters
    ----------
    name : str
        As in ``data_schemas/labels.json``; a sided version ends in ``-sided``.
    labels : tuple of Label
        In the order of the channels of a probability map.
    sided_ids : mapping of int to (int, int)
        Ids of the (left, right) version of each unsided id; empty in a sided set.
    """

    name: str
    labels: tuple[Label, ...]
    sided_ids: Mapping[int, tuple[int, int]]

    def __post_init__(self) -> None:
        # Sets are shared by everyone who asks for one: nobody may change the ids of all.
        object.__setattr__(self, "sided_ids", MappingProxyType(dict(self.sided_ids)))

    def __reduce__(self) -> tuple[type[LabelSet], tuple[str, tuple[Label, ...], dict[int, tuple[int, int]]]]:
        # A mapping proxy cannot be pickled.
        return LabelSet, (self.name, self.labels, dict(self.sided_ids))

    def __hash__(self) -> int:
        return hash((self.name, self.labels))

    def __repr__(self) -> str:
        return f"LabelSet({self.name}: {', '.join(f'{label.id} {label.full_name}' for label in self.labels)})"

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, id: int) -> Label:
        """Return the label of an id; LabelError if there is none."""
        try:
            return self._by_id[id]
        except KeyError:
            raise LabelError(f"the set '{self.name}' has no label {id}") from None

    @cached_property
    def _by_id(self) -> dict[int, Label]:
        return {label.id: label for label in self.labels}

    @property
    def ids(self) -> frozenset[int]:
        """Every id, background left out."""
        return frozenset(self._by_id)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order, each once even when the set is sided."""
        return tuple(dict.fromkeys(label.name for label in self.labels))

    @property
    def is_sided(self) -> bool:
        """Whether left and right have ids of their own."""
        return any(label.side for label in self.labels)

    def ids_of(self, name: str, side: Side | None = None) -> tuple[int, ...]:
        """Ids of the label of that name or abbreviation: both sides unless one is asked for.

        Raises
        ------
        LabelError
            If there is no such label; the message lists those there are.
        """
        found = tuple(
            label.id
            for label in self.labels
            if name in (label.name, label.abbreviation) and (side is None or label.side == side)
        )
        if not found:
            raise LabelError(f"the set '{self.name}' has no label '{name}'; it has: {', '.join(self.names)}")
        return found

    def sided(self) -> LabelSet:
        """Return the version with a label for each side; a sided set returns itself."""
        if self.is_sided:
            return self
        labels = tuple(
            replace(label, id=self.sided_ids[label.id][SIDES.index(side)], side=side)
            for label in self.labels
            for side in SIDES
        )
        return LabelSet(self.name + SIDED_SUFFIX, labels, {})

    def unsided(self) -> LabelSet:
        """Return the set without sides; an unsided set returns itself."""
        return label_set(self.name.removesuffix(SIDED_SUFFIX)) if self.is_sided else self


@dataclass(frozen=True)
class LabelMapping:
    """A way from one label set to another; it may be partial, and names what it drops.

    Parameters
    ----------
    source, target : LabelSet
        Where it starts and ends.
    ids : mapping of int to int
        Source id to target id; an id that is missing becomes background.
    """

    source: LabelSet
    target: LabelSet
    ids: Mapping[int, int]

    @property
    def dropped(self) -> tuple[str, ...]:
        """Full names of the source labels that have no place in the target."""
        return tuple(label.full_name for label in self.source if label.id not in self.ids)

    def table(self) -> NDArray[np.uint16]:
        """Lookup table: ``table()[voxels]`` are the ids in the target."""
        table = np.zeros(max(self.source.ids) + 1, dtype=np.uint16)
        for before, after in self.ids.items():
            table[before] = after
        return table


@cache
def _data() -> dict[str, Any]:
    return read_json("labels.json")


def label_set_names() -> tuple[str, ...]:
    """Names of every label set, sided versions included."""
    base = tuple(_data()["sets"])
    return base + tuple(name + SIDED_SUFFIX for name in base)


@cache
def label_set(name: str) -> LabelSet:
    """Return the label set of that name.

    Parameters
    ----------
    name : str
        One of `label_set_names`.

    Raises
    ------
    UnknownNameError
        If there is none; the message lists those there are.

    Examples
    --------
    >>> label_set("thigh-4").names
    ('gracilis', 'hamstrings', 'quadriceps femoris', 'sartorius')
    """
    if name not in label_set_names():
        raise unknown_name("label set", name, label_set_names())
    if name.endswith(SIDED_SUFFIX):
        return label_set(name.removesuffix(SIDED_SUFFIX)).sided()
    entries = _data()["sets"][name]["labels"]
    labels = tuple(Label(e["id"], e["name"], e["abbreviation"], e["color"], e.get("group")) for e in entries)
    # Left ids are odd and right ids even unless the set, made elsewhere, states its own.
    sided = {e["id"]: (e.get("left_id", 2 * e["id"] - 1), e.get("right_id", 2 * e["id"])) for e in entries}
    return LabelSet(name, labels, sided)


def label_mapping(source: LabelSet, target: LabelSet) -> LabelMapping:
    """Return the way from one label set to another.

    Sides are kept when both sets have them, and dropped when only the source has. An unsided set cannot be mapped to
    a sided one: that takes a picture, not a table (see `musclekit.anatomy`).

    Raises
    ------
    LabelError
        If no map joins the two; the message lists the targets there are.
    """
    start, end = source.unsided(), target.unsided()
    if target.is_sided and not source.is_sided:
        raise LabelError(f"'{source.name}' does not tell left from right, '{target.name}' does")
    if start.name == end.name:
        by_name = {name: name for name in start.names}
    else:
        maps = _data()["maps"].get(start.name, {})
        if end.name not in maps:
            reachable = ", ".join(sorted(maps)) or "none"
            raise LabelError(f"no map from '{start.name}' to '{end.name}'; from it one can reach: {reachable}")
        by_name = maps[end.name]
    ids = {
        label.id: target.ids_of(by_name[label.name], label.side if target.is_sided else None)[0]
        for label in source
        if label.name in by_name
    }
    return LabelMapping(source, target, ids)
