"""How far to trust each structure of a segmentation: its variance, and the spread of its volume and areas."""

from __future__ import annotations

import numpy as np
import pandas as pd

from musclekit.anatomy import Leg, body_mask, label_sides, split_legs
from musclekit.image import Image, LabelMap, Prediction
from musclekit.labels import Side
from musclekit.uncertainty import DiceCalibration, sample_interval, structure_variance

__all__ = ["area_table", "uncertainty_table"]


def uncertainty_table(
    prediction: Prediction,
    image: Image,
    *,
    side: Side | None = None,
    calibration: DiceCalibration | None = None,
    level: float = 0.95,
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
        ``structure``, ``abbreviation``, ``side``, ``voxels``, ``psv``, ``volume_ml`` (median of the samples),
        ``volume_low`` and ``volume_high``; with a calibration ``predicted_dice``, ``predicted_low`` and
        ``predicted_high``.
    """
    labels = _sided(prediction.labels, image, side)
    table = structure_variance(labels, prediction.variance).drop(columns="id")
    spread = [
        _spread(prediction, str(structure), str(of_side), level)
        for structure, of_side in zip(table["structure"], table["side"], strict=True)
    ]
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


def area_table(prediction: Prediction, *, level: float = 0.95) -> pd.DataFrame:
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
    legs = split_legs(image, body_mask(image))
    if len(legs) == 1 and side is not None:
        legs = (Leg(side, legs[0].mask),)
    return label_sides(labels, legs) if all(leg.side for leg in legs) else labels


def _spread(prediction: Prediction, structure: str, side: str, level: float) -> tuple[float, float, float]:
    # Where one leg is seen and the network did not know which, its volumes go by the name alone.
    samples = prediction.volume_ml.get(f"{structure} {side}" if side else structure)
    if samples is None:
        samples = prediction.volume_ml[structure]
    interval = sample_interval(samples, level=level)
    return float(np.median(samples)), interval.low, interval.high
