"""What is told of a translation: its checks as a table and as warnings, and the pictures that show what it did."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from sklearn.base import BaseEstimator

from musclekit.errors import UnsafeError
from musclekit.evaluation.translations import compare_translation, translated_part
from musclekit.image import Image, LabelMap
from musclekit.labels import Label, LabelSet
from musclekit.protocols import Segmenter, Translator
from musclekit.report import Picture, Table, montage
from musclekit.translators.safety import Check
from musclekit.workflows.outcome import ScanOutcome

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CheckedTranslation", "check_translation", "device_of", "translated_by", "translator_in"]

#: What became of muscle, in the colours of Gadermayr et al. (hard-to-easy translation), Figure 3.
MUSCLE_CHANGE = LabelSet(
    "muscle-change",
    (
        Label(1, "muscle in both", "KEPT", "#e6c229"),
        Label(2, "muscle added", "ADDED", "#2ca25f"),
        Label(3, "muscle removed", "GONE", "#d7301f"),
    ),
    {},
)

#: How to read the table.
CAPTION = (
    "Comparison of the image with its translation; muscle and compartment as the tissue segmenter finds them in each. "
    "What is not kept says that something went wrong; what is kept does not prove the translation right. Labels are "
    "laid on the original image, and everything is measured there."
)
#: Of each picture; the whole scan stands in that of the segmentation.
MAX_SLICES = 6
ABOVE = "Seen from below: the patient's right is on the left."


@dataclass(frozen=True, eq=False)
class CheckedTranslation:
    """A translation and what is told of it.

    Parameters
    ----------
    fake : Image
        The translation.
    checks : tuple of Check
        See `musclekit.translators.safety`.
    warnings : tuple of str
        What did not pass, and what could not be told.
    pictures : tuple of Picture
        The translation, and what it changed.
    """

    fake: Image
    checks: tuple[Check, ...]
    warnings: tuple[str, ...]
    pictures: tuple[Picture, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """The checks as a table: ``check``, ``found``, ``expected``, ``verdict``."""
        import pandas as pd

        words = {True: "kept", False: "not kept", None: "not told"}
        rows = [
            {
                "check": check.name,
                "found": check.value,
                "expected": "" if np.isnan(check.limit) else f"{'>=' if check.is_least else '<='} {check.limit:g}",
                "verdict": words[check.is_met] if not np.isnan(check.limit) else "",
            }
            for check in self.checks
        ]
        return pd.DataFrame(rows)

    def added_to(self, outcome: ScanOutcome) -> ScanOutcome:
        """Return the outcome of a scan with what is told of its translation."""
        return replace(
            outcome,
            warnings=(*outcome.warnings, *self.warnings),
            tables=(*outcome.tables, Table("Checks of the translation", self.frame, CAPTION)),
            pictures=(*outcome.pictures, *self.pictures),
            safety={check.name: check.value for check in self.checks},
        )


def check_translation(image: Image, fake: Image, translator: Translator, *, strict: bool = False) -> CheckedTranslation:
    """Check a translation and draw it.

    Parameters
    ----------
    image, fake : Image
        What went in and what came out.
    translator : Translator
        What translated; the card of a network says what it was trained to do.
    strict : bool
        Whether a translation that does not pass is refused.

    Returns
    -------
    CheckedTranslation
        What is told of it.

    Raises
    ------
    UnsafeError
        If `strict` is set and something does not pass or could not be told; the message says what.
    VoxelError, ModalityError, SegmentationError
        If there is nothing to see in the image.
    """
    found = compare_translation(image, fake, translator)
    before, after, problems = found.before, found.after, found.problems
    if strict and problems:
        raise UnsafeError(f"the translation is refused: {'; '.join(problems)}")
    warnings = tuple(f"translation: {problem}" for problem in problems)
    return CheckedTranslation(fake, found.safety.checks(), warnings, tuple(_pictures(image, fake, before, after)))


def _pictures(image: Image, fake: Image, before: LabelMap, after: LabelMap | None) -> list[Picture]:
    nothing = before.with_voxels(np.zeros_like(before.voxels))
    pictures = [
        Picture(
            "Translation",
            montage(fake, nothing if after is None else after, max_slices=MAX_SLICES),
            "Slices of the translation with the outlines of the tissues found in it.",
            f"Tissues as the tissue segmenter finds them in the translation. {ABOVE}",
        )
    ]
    if image.contrast is fake.contrast:
        pictures.append(
            Picture(
                "What the translation changed",
                montage(image, nothing, fake=fake, max_slices=MAX_SLICES),
                "The image and its translation laid over each other in colours.",
                f"Green became more like muscle, red less; what is yellow stayed as it was. {ABOVE}",
            )
        )
    if after is not None:
        pictures.append(
            Picture(
                "Muscle before and after",
                montage(image, _change(before, after), max_slices=MAX_SLICES),
                "Slices of the image with muscle in both, muscle added and muscle removed.",
                f"Muscle as the tissue segmenter finds it in the image and in its translation. {ABOVE}",
            )
        )
    return pictures


def _change(before: LabelMap, after: LabelMap) -> LabelMap:
    was, now = before.mask("muscle"), after.mask("muscle")
    return LabelMap(np.select([was & now, now, was], [1, 2, 3], 0).astype(np.uint8), before.grid, MUSCLE_CHANGE)


def translator_in(method: Segmenter) -> Translator | None:
    """Return the translator a segmenter works behind; None where it looks at the image itself."""
    composed = translated_part(method)
    return None if composed is None else composed.translator


def translated_by(method: Segmenter, image: Image) -> Image:
    """Return what the segmenter behind the translator is given for an image."""
    composed = translated_part(method)
    return image if composed is None else composed.translate(image)


def device_of(method: object) -> str:
    """Return the devices that a method and its parts run on, by their full names; the processor where none is named."""
    named = {
        str(value)
        for key, value in cast(BaseEstimator, method).get_params().items()
        if key.rpartition("__")[2] == "device"
    }
    if not named:
        return "cpu"
    from musclekit.neural import resolve_device

    return ", ".join(sorted({str(resolve_device(name)) for name in named}))
