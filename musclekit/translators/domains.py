"""Whether two domains show the same anatomy: size, shape and place of the muscle compartment.

To be asked before a translator is trained. A discriminator tells domains apart by whatever tells them apart: where one
holds larger thighs than the other, a translator learns to enlarge them. That it changes nothing but grey values rests
on the masks of both domains being distributed alike.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from musclekit.anatomy import Leg, body_mask, split_legs
from musclekit.errors import InputError, MusclekitError
from musclekit.image import Case, Contrast, Grid, Image
from musclekit.labels import LabelMapping, Side, label_mapping, label_set
from musclekit.protocols import Segmenter

__all__ = ["MEASURES", "Difference", "DomainDifference", "compare_domains", "compartment_shapes"]

#: What is compared, and its unit. Places are those of the compartment's centroid seen from that of the leg.
MEASURES: Mapping[str, str] = MappingProxyType(
    {"area": "mm2", "eccentricity": "", "solidity": "", "place forwards": "mm", "place outwards": "mm"}
)
#: A standardised difference from here on is called large (Cohen).
LARGE = 0.8
#: A compartment smaller than this in a slice has no shape.
MIN_AREA_MM2 = 100.0
#: Half width of a 95 % interval in standard errors.
Z95 = 1.96


@dataclass(frozen=True)
class Difference:
    """How one measure differs between two domains; each subject counts once, with the median of its slices.

    Parameters
    ----------
    measure, unit : str
        See `MEASURES`.
    source, target : float
        Median of the subjects.
    n_source, n_target : int
        Subjects.
    effect : float
        Mean of the target less that of the source, in standard deviations of the subjects within a domain (Cohen's d);
        NaN with fewer than three subjects.
    low, high : float
        Its 95 % interval, by the large-sample error of Hedges and Olkin: with few subjects it is rough.
    """

    measure: str
    unit: str
    source: float
    target: float
    n_source: int
    n_target: int
    effect: float
    low: float
    high: float

    @property
    def is_large(self) -> bool:
        """Whether it reaches 0.8 standard deviations."""
        return abs(self.effect) >= LARGE

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        source, target = (
            f"{value:.0f}{unit}" if abs(value) >= 100 else f"{value:.3g}{unit}" for value in (self.source, self.target)
        )
        return (
            f"{self.measure} of the compartment: median {source} in the source ({self.n_source} subjects), {target} in "
            f"the target ({self.n_target}); standardised difference {self.effect:.2f} (95 % interval {self.low:.2f} to "
            f"{self.high:.2f})"
        )


@dataclass(frozen=True)
class DomainDifference:
    """How two domains differ.

    Parameters
    ----------
    differences : tuple of Difference
        One for each of `MEASURES` that both domains show.
    n_source, n_target : int
        Subjects whose compartment was found.
    missing : tuple of str
        Cases in which no slice showed a compartment.
    """

    differences: tuple[Difference, ...]
    n_source: int
    n_target: int
    missing: tuple[str, ...]

    def warnings(self) -> tuple[str, ...]:
        """Say, one line each, what differs much and what could not be compared."""
        lines = [f"the domains differ: {found}" for found in self.differences if found.is_large]
        if any(math.isnan(found.effect) for found in self.differences):
            lines.append(
                f"the domains cannot be compared with {self.n_source} subject(s) in the source and {self.n_target} in "
                "the target"
            )
        if self.missing:
            lines.append(f"{len(self.missing)} case(s) show no muscle compartment: {', '.join(self.missing)}")
        return tuple(lines)


def compartment_shapes(compartment: NDArray[np.bool_], leg: Leg, grid: Grid) -> NDArray[np.float64]:
    """Measure the compartment of one leg, slice by slice.

    Parameters
    ----------
    compartment : ndarray of bool, shape (Z, Y, X)
        Its mask; what lies outside the leg does not count.
    leg : Leg
        See `musclekit.anatomy.split_legs`.
    grid : Grid
        Grid of both masks.

    Returns
    -------
    ndarray of float, shape (n, 5)
        In the order of `MEASURES`, for the slices with at least 100 mm2 of compartment. Bone is a hole in it and lowers
        the solidity. Outwards is away from the other leg; NaN where the side of the leg is not known.
    """
    from skimage.measure import regionprops

    spacing = grid.spacing[1:]
    outwards = {"right": 1.0, "left": -1.0, None: math.nan}[leg.side]
    rows = []
    for z in np.flatnonzero((compartment & leg.mask).any(axis=(1, 2))):
        inside = compartment[z] & leg.mask[z]
        (region,) = regionprops(inside.view(np.uint8), spacing=spacing)  # type: ignore[no-untyped-call]
        if region.area < MIN_AREA_MM2:
            continue
        ends = np.array([[z, *np.argwhere(mask).mean(axis=0)] for mask in (leg.mask[z], inside)])
        x, y, _ = np.diff(grid.world(ends), axis=0)[0]
        rows.append((region.area, region.eccentricity, region.solidity, y, x * outwards))
    return np.array(rows, dtype=np.float64).reshape(-1, len(MEASURES))


def compare_domains(
    source: Iterable[Case],
    target: Iterable[Case],
    segmenter: Segmenter,
    *,
    source_contrast: Contrast | None = None,
    target_contrast: Contrast | None = None,
) -> DomainDifference:
    """Compare the muscle compartments of two domains, leg by leg and slice by slice.

    Parameters
    ----------
    source, target : iterable of Case
        One at a time is enough.
    segmenter : Segmenter
        Finds the compartment in both; its labels must lead to the set ``compartment``, as those of the tissue segmenter
        do.
    source_contrast, target_contrast : Contrast, optional
        Which image of a case is meant, where there are several.

    Returns
    -------
    DomainDifference
        Its ``warnings`` are to be shown before training.

    Raises
    ------
    LabelError
        If the segmenter's labels do not say what the compartment is.
    InputError
        If a domain is empty or none of its slices shows a compartment.
    VoxelError, ModalityError, SegmentationError
        If an image cannot be segmented; the message names the case.

    Notes
    -----
    Gadermayr et al. (hard to easy) ask that masks of both domains be distributed alike, and leave open how that is
    seen. Slices of one person are no samples of their own: the spread is that between subjects.
    """
    mapping = label_mapping(segmenter.label_set.unsided(), label_set("compartment"))
    missing: list[str] = []
    domains = [
        _by_subject(cases, contrast, segmenter, mapping, name, missing)
        for name, cases, contrast in (("source", source, source_contrast), ("target", target, target_contrast))
    ]
    differences = []
    for column, (measure, unit) in enumerate(MEASURES.items()):
        values = [shapes[np.isfinite(shapes[:, column]), column] for shapes in domains]
        if all(len(one) for one in values):
            differences.append(_difference(measure, unit, *values))
    return DomainDifference(tuple(differences), len(domains[0]), len(domains[1]), tuple(missing))


def _by_subject(
    cases: Iterable[Case],
    contrast: Contrast | None,
    segmenter: Segmenter,
    mapping: LabelMapping,
    name: str,
    missing: list[str],
) -> NDArray[np.float64]:
    """Medians of each subject's slices, shape (subjects, 5); cases without a compartment are added to `missing`."""
    shapes: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    is_empty = True
    for case in cases:
        is_empty = False
        image = case.image_of(contrast)
        try:
            found = _shapes_of(image, case.side, segmenter, mapping)
        except MusclekitError as error:
            raise type(error)(f"case '{case.id}': {error}") from error
        if len(found):
            shapes[case.subject].append(found)
        else:
            missing.append(case.id)
    if not shapes:
        why = "there is no case in it" if is_empty else "no slice shows a muscle compartment"
        raise InputError(f"the {name} domain is empty: {why}")
    return np.array([_medians(np.concatenate(tables)) for tables in shapes.values()])


def _shapes_of(image: Image, side: Side | None, segmenter: Segmenter, mapping: LabelMapping) -> NDArray[np.float64]:
    compartment = segmenter.segment(image).mapped(mapping).mask("compartment")
    legs = split_legs(image, body_mask(image), side=side)
    return np.concatenate([compartment_shapes(compartment, leg, image.grid) for leg in legs])


def _medians(table: NDArray[np.float64]) -> list[float]:
    """Median of the finite values of each column; NaN for a column without any."""
    columns = (column[np.isfinite(column)] for column in table.T)
    return [float(np.median(column)) if len(column) else math.nan for column in columns]


def _difference(measure: str, unit: str, source: NDArray[np.float64], target: NDArray[np.float64]) -> Difference:
    n, m = len(source), len(target)
    effect = low = high = math.nan
    if n + m > 2:
        squares = sum(float(((values - values.mean()) ** 2).sum()) for values in (source, target))
        spread = math.sqrt(squares / (n + m - 2))
        apart = float(target.mean() - source.mean())
        # Rounding leaves a little of subjects that are all alike.
        tiny = 1e-12 * float(np.abs(np.concatenate([source, target])).max())
        effect = apart / spread if spread > tiny else math.copysign(math.inf, apart) if abs(apart) > tiny else 0.0
        half = Z95 * math.sqrt((n + m) / (n * m) + effect**2 / (2 * (n + m))) if math.isfinite(effect) else 0.0
        low, high = effect - half, effect + half
    return Difference(measure, unit, float(np.median(source)), float(np.median(target)), n, m, effect, low, high)
