"""How far to trust each structure of a segmentation: its variance, and the spread of its volume and areas."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from musclekit.anatomy import body_mask, label_sides, split_legs
from musclekit.errors import ParameterError
from musclekit.image import Image, LabelMap, Prediction
from musclekit.io import Scan, write_image
from musclekit.labels import Side
from musclekit.protocols import Segmenter, UncertainSegmenter
from musclekit.report import Picture, Table, montage, variance_bars
from musclekit.segmenters.network import NetworkSegmenter
from musclekit.statistics import Interval
from musclekit.uncertainty import DiceCalibration, interval_text, sample_interval, structure_variance
from musclekit.workflows.numbers import write_table
from musclekit.workflows.outcome import ScanOutcome

__all__ = ["Trust", "area_table", "check_calibration", "trust_in", "uncertain", "uncertainty_table"]

#: Share of the samples that intervals hold.
LEVEL = 0.95
#: Labels whose volume lies further than this outside the interval of the samples, as a share of their median, are told.
MOST_APART = 0.05
#: A structure of which no higher Dice is to be expected is told.
LEAST_DICE = 0.7
CAPTION = (
    "PSV is the mean variance of the network's answers inside a structure. The volume is the median of the samples, "
    f"with the interval that {LEVEL:.0%} of them lie in: the spread of one network's answers, not of the truth. Labels "
    "are the mean's, of which small pieces apart from a structure are left out."
)
PREDICTED = " The predicted Dice is what structures of that PSV reached in cross-validation, with its interval."


@dataclass(frozen=True, eq=False)
class Trust:
    """What is told of how far a segmentation can be trusted.

    Parameters
    ----------
    prediction : Prediction
        What the network said.
    structures, areas : DataFrame
        See `uncertainty_table` and `area_table`.
    picture : bytes
        The variance laid over the scan, as PNG.
    """

    prediction: Prediction
    structures: pd.DataFrame
    areas: pd.DataFrame
    picture: bytes

    def write(self, folder: Path, name: str, scan: Scan) -> None:
        """Write tables, maps and the picture of a scan.

        ``<name>_uncertainty.csv``, ``_areas.csv``, ``_variance.nii.gz``, ``_entropy.nii.gz``, ``_variance.png``; the
        maps lie on the grid of the scan.
        """
        write_table(self.structures, folder / f"{name}_uncertainty.csv")
        write_table(self.areas, folder / f"{name}_areas.csv")
        for what, values in (("variance", self.prediction.variance), ("entropy", self.prediction.entropy)):
            write_image(scan.image.with_voxels(values), folder / f"{name}_{what}.nii.gz", like=scan)
        (folder / f"{name}_variance.png").write_bytes(self.picture)

    def added_to(self, outcome: ScanOutcome) -> ScanOutcome:
        """Return the outcome of a scan with what is told of its uncertainty."""
        told = self.structures
        shown = told[["structure", "side"]].assign(
            PSV=told["psv"],
            Labelled=[f"{volume:.0f} ml" if volume else "not found" for volume in told["labelled_ml"]],
            Volume=_intervals(told, ("volume_ml", "volume_low", "volume_high"), "ml", decimals=0),
        )
        caption = CAPTION
        if "predicted_dice" in told:
            columns = ("predicted_dice", "predicted_low", "predicted_high")
            shown["Predicted Dice"] = _intervals(told, columns, "", decimals=2)
            caption += PREDICTED
        order = shown["PSV"].sort_values(ascending=False, na_position="last", kind="stable").index
        return replace(
            outcome,
            tables=(
                *outcome.tables,
                Table("Uncertainty, the least certain structures first", shown.loc[order], caption),
            ),
            figures=(*outcome.figures, variance_bars(self.structures)),
            pictures=(
                *outcome.pictures,
                Picture(
                    "Uncertainty",
                    self.picture,
                    "Slices with the predictive variance laid over them, and the outline of every structure.",
                    "Where the network's answers differ: violet little, yellow much. Thin lines along borders are "
                    "usual; a muscle that is filled is one not to trust.",
                ),
            ),
        )


def _intervals(table: pd.DataFrame, columns: tuple[str, str, str], unit: str, *, decimals: int) -> list[str]:
    numbers = table[list(columns)].to_numpy(dtype=np.float64).tolist()
    return [
        interval_text(value, Interval(low, high, LEVEL, "samples"), unit, decimals=decimals)
        if np.isfinite(value)
        else "–"
        for value, low, high in numbers
    ]


def uncertain(method: Segmenter) -> UncertainSegmenter | None:
    """Return the method if, as it is set, it answers several times."""
    return method if isinstance(method, UncertainSegmenter) and method.is_uncertain else None


def check_calibration(calibration: DiceCalibration, method: Segmenter) -> None:
    """Refuse a calibration that was not made for a method.

    Raises
    ------
    ParameterError
        If the method is no single network that is sampled.
    CheckpointError
        If model, reduction or number of samples are others, or the network learnt from other people.
    """
    if not isinstance(method, NetworkSegmenter) or uncertain(method) is None:
        raise ParameterError("a calibration is for a trained network that is sampled: set samples, or leave it out")
    calibration.check(
        model=method.card.family,
        class_reduction=method.reduction,
        n_samples=method.n_samples,
        subjects=method.training_subjects_,
    )


def trust_in(
    prediction: Prediction, image: Image, *, side: Side | None = None, calibration: DiceCalibration | None = None
) -> Trust:
    """Work out what is told of a prediction, and draw it.

    Warns
    -----
    UserWarning
        If structures are to be looked at: their labels are much larger or smaller than their samples, or the Dice to
        be expected is low.
    """
    structures = uncertainty_table(prediction, image, side=side, calibration=calibration)
    _warn_of_doubts(structures)
    return Trust(
        prediction,
        structures,
        area_table(prediction),
        montage(image, prediction.labels, variance=prediction.variance),
    )


def uncertainty_table(
    prediction: Prediction,
    image: Image,
    *,
    side: Side | None = None,
    calibration: DiceCalibration | None = None,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Return what is known of each structure of each leg.

    Parameters
    ----------
    prediction : Prediction
        Of a segmenter that answered several times.
    image : Image
        What it segmented.
    side : {"left", "right"}, optional
        Which leg, where the scan shows one.
    calibration : DiceCalibration, optional
        What the variance tells of the Dice to be expected.
    level : float
        Share of the samples that intervals hold.

    Returns
    -------
    DataFrame
        ``structure``, ``abbreviation``, ``side``, ``voxels``, ``psv``, ``labelled_ml`` (as labelled), ``volume_ml``
        (median of the samples, all of whose pieces count), ``volume_low`` and ``volume_high``; with a calibration
        ``predicted_dice``, ``predicted_low`` and ``predicted_high``.
    """
    labels = _sided(prediction.labels, image, side)
    table = structure_variance(labels, prediction.variance).drop(columns="id")
    samples = [
        _samples(prediction, str(structure), str(of_side), side)
        for structure, of_side in zip(table["structure"], table["side"], strict=True)
    ]
    # Of a leg that the scan does not show there is nothing to tell.
    table = table[[one is not None for one in samples]].reset_index(drop=True)
    spread = [(float(np.median(one)), *_ends(one, level)) for one in samples if one is not None]
    table["labelled_ml"] = table["voxels"] * labels.grid.voxel_volume_mm3 / 1000
    table[["volume_ml", "volume_low", "volume_high"]] = np.array(spread).reshape(-1, 3)
    if calibration is not None:
        told = [
            calibration.predict(str(structure), float(psv), level=level)
            for structure, psv in zip(table["structure"], table["psv"], strict=True)
        ]
        table["predicted_dice"] = [one.value for one in told]
        table["predicted_low"] = [one.low for one in told]
        table["predicted_high"] = [one.high for one in told]
    return table


def _warn_of_doubts(table: pd.DataFrame) -> None:
    """Name the structures that nobody should use without a look at them."""
    names = (table["structure"] + " " + table["side"]).str.rstrip()
    far = np.maximum(table["volume_low"] - table["labelled_ml"], table["labelled_ml"] - table["volume_high"])
    doubts = {"labels and samples differ in volume": far > MOST_APART * table["volume_ml"]}
    if "predicted_dice" in table:
        doubts[f"a Dice below {LEAST_DICE:g} is to be expected"] = table["predicted_dice"] < LEAST_DICE
    for what, are in doubts.items():
        if are.any():
            warnings.warn(f"{what}: {', '.join(names[are])}; look at them before you use them", stacklevel=3)


def area_table(prediction: Prediction, *, level: float = LEVEL) -> pd.DataFrame:
    """Return the area of each structure in each slice that shows it in any sample, with the interval of the samples.

    Returns
    -------
    DataFrame
        ``structure`` (with its side where that is known), ``slice``, ``csa_mm2`` (median), ``csa_low``, ``csa_high``.
    """
    rows = []
    for name, areas in prediction.csa_mm2.items():
        for z in np.flatnonzero(areas.any(axis=0)).tolist():
            interval = sample_interval(areas[:, z], level=level)
            rows.append((name, z, float(np.median(areas[:, z])), interval.low, interval.high))
    return pd.DataFrame(rows, columns=["structure", "slice", "csa_mm2", "csa_low", "csa_high"])


def _sided(labels: LabelMap, image: Image, side: Side | None) -> LabelMap:
    """Tell the legs apart, as the measures of a scan do; labels whose side nobody knows stay as they are."""
    if labels.label_set.is_sided:
        return labels
    legs = split_legs(image, body_mask(image), side=side)
    return label_sides(labels, legs) if all(leg.side for leg in legs) else labels


def _samples(prediction: Prediction, structure: str, of_side: str, told: Side | None) -> NDArray[np.float64] | None:
    """Return the volumes of a structure of a leg in the samples; None of a leg that the scan does not show."""
    known = prediction.volume_ml
    # A network that was not told which leg it sees tells of it by the name alone.
    alone = known.get(structure) if of_side == (told or "") else None
    return known.get(f"{structure} {of_side}".rstrip(), alone)


def _ends(samples: NDArray[np.float64], level: float) -> tuple[float, float]:
    interval = sample_interval(samples, level=level)
    return interval.low, interval.high
