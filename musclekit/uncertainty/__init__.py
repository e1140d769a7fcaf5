"""How far a sampling network can be trusted: variance, structure by structure, and the Dice to be expected of it.

A network with dropout left on gives other probabilities each time it is asked (Monte Carlo dropout). U below is the
predictive variance of a voxel: the variance over the samples of the probability of each class, summed over classes.

Hiasa et al., Automated muscle segmentation from clinical CT using Bayesian U-Net for personalized musculoskeletal
modeling, IEEE Trans Med Imaging 39(4):1030-1040, 2020: equations (3) to (6). What is added: entropy, the interval of
the predicted Dice, the calibration of the probabilities, and how well U finds the errors.
"""

from musclekit.uncertainty.expected_dice import FORMAT, DiceCalibration, DiceLine, PredictedDice, fit_dice_calibration
from musclekit.uncertainty.reliability import (
    ErrorAgreement,
    InsideOutside,
    calibration_curve,
    error_agreement,
    expected_calibration_error,
    uncertainty_inside_outside,
)
from musclekit.uncertainty.samples import RunningSums, entropy
from musclekit.uncertainty.structures import (
    interval_text,
    sample_interval,
    structure_variance,
    structure_variance_by_slice,
)
from musclekit.uncertainty.values import ClassReduction

__all__ = [
    "FORMAT",
    "ClassReduction",
    "DiceCalibration",
    "DiceLine",
    "ErrorAgreement",
    "InsideOutside",
    "PredictedDice",
    "RunningSums",
    "calibration_curve",
    "entropy",
    "error_agreement",
    "expected_calibration_error",
    "fit_dice_calibration",
    "interval_text",
    "sample_interval",
    "structure_variance",
    "structure_variance_by_slice",
    "uncertainty_inside_outside",
]
