"""The default method: muscle, cortical bone, marrow, subcutaneous and intermuscular fat, in CT and in MR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from sklearn.base import BaseEstimator

from musclekit.anatomy import body_mask, split_legs
from musclekit.checks import check_cases, check_contrast, check_number, check_voxels
from musclekit.errors import ParameterError
from musclekit.image import Case, Contrast, Image, LabelMap
from musclekit.labels import LabelSet, label_set
from musclekit.segmenters.planes import numbered_legs
from musclekit.segmenters.tissue_ct import BALL_MM, BONE_HU, FAT_HU, METAL_HU, WIDE_BALL_MM, ct_tissues
from musclekit.segmenters.tissue_mr import mr_tissues

__all__ = ["TissueSegmenter"]


class TissueSegmenter(BaseEstimator):
    """Tissues of the thigh without training data, by thresholds and shape in CT and by even brightness in MR.

    The muscle compartment, all that lies inside the fascia lata but bone, is muscle and intermuscular fat together.
    Both legs at once, legs cut by the field of view, one-plane volumes. An implant and the skin stay without a label.

    Parameters
    ----------
    fat_hu : float
        CT: fat lies below, muscle above.
    bone_hu : float
        CT: bone holds voxels above.
    metal_hu : float
        CT: voxels above are an implant.
    ball_mm : float
        CT: radius of the disk that finds the compartment's border; seams narrower than twice this are bridged.
    wide_ball_mm : float
        CT: the same for a leg whose muscle has mostly turned to fat.
    infiltrated_share : float
        MR: muscle holds a smaller share of fat than this once streaks are taken out.
    streak_mm : float
        MR: fat inside the fascia that is thinner than this belongs to the muscle it lies in.

    See Also
    --------
    musclekit.segmenters.tissue_ct.ct_tissues, musclekit.segmenters.tissue_mr.mr_tissues : the work, as functions.
    """

    def __init__(
        self,
        *,
        fat_hu: float = FAT_HU,
        bone_hu: float = BONE_HU,
        metal_hu: float = METAL_HU,
        ball_mm: float = BALL_MM,
        wide_ball_mm: float = WIDE_BALL_MM,
        infiltrated_share: float = 0.8,
        streak_mm: float = 4.0,
    ) -> None:
        self.fat_hu = fat_hu
        self.bone_hu = bone_hu
        self.metal_hu = metal_hu
        self.ball_mm = ball_mm
        self.wide_ball_mm = wide_ball_mm
        self.infiltrated_share = infiltrated_share
        self.streak_mm = streak_mm

    @property
    def label_set(self) -> LabelSet:
        """The set ``tissue``."""
        return label_set("tissue")

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """Every contrast."""
        return frozenset(Contrast)

    def fit(self, cases: Sequence[Case]) -> Self:
        """Check the parameters and the cases; there is nothing to learn."""
        self._check_parameters()
        check_cases(cases, self.contrasts, "tissue")
        return self

    def segment(self, image: Image) -> LabelMap:
        """Label the tissues.

        Raises
        ------
        VoxelError
            If the image is constant or all air.
        ModalityError
            If the grey values cannot be what the contrast says.
        SegmentationError
            If there is no body in it.
        """
        self._check_parameters()
        check_contrast(image, self.contrasts, "tissue")
        check_voxels(image)
        body = body_mask(image)
        legs = numbered_legs(split_legs(image, body), image.grid.shape)
        if image.contrast is Contrast.CT:
            voxels = ct_tissues(
                image,
                body,
                legs,
                fat_hu=self.fat_hu,
                bone_hu=self.bone_hu,
                metal_hu=self.metal_hu,
                ball_mm=self.ball_mm,
                wide_ball_mm=self.wide_ball_mm,
            )
        else:
            voxels = mr_tissues(image, body, legs, infiltrated_share=self.infiltrated_share, streak_mm=self.streak_mm)
        return LabelMap(voxels, image.grid, self.label_set)

    def _check_parameters(self) -> None:
        for name in ("fat_hu", "bone_hu", "metal_hu", "ball_mm", "wide_ball_mm"):
            check_number(name, getattr(self, name))
        check_number("infiltrated_share", self.infiltrated_share, above=0, most=1)
        check_number("streak_mm", self.streak_mm, least=0)
        if not self.fat_hu < self.bone_hu < self.metal_hu:
            raise ParameterError(
                f"fat_hu, bone_hu and metal_hu must rise, not {self.fat_hu:g}, {self.bone_hu:g}, {self.metal_hu:g} HU"
            )
        if not 0 < self.ball_mm <= self.wide_ball_mm:
            raise ParameterError(
                f"ball_mm must be positive and at most wide_ball_mm, not {self.ball_mm:g} and {self.wide_ball_mm:g} mm"
            )
