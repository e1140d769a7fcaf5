"""A translation held against the image it was made of: what every run that translates has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from musclekit.compose import Translated
from musclekit.errors import InputError, SegmentationError
from musclekit.image import Image, LabelMap
from musclekit.protocols import Segmenter, Translator
from musclekit.segmenters.tissue import TissueSegmenter
from musclekit.translators.network import NetworkTranslator
from musclekit.translators.safety import Safety, safety

__all__ = ["ComparedTranslation", "compare_translation", "translated_part", "translation_problems"]


@dataclass(frozen=True, eq=False)
class ComparedTranslation:
    """What a translation kept and changed.

    Parameters
    ----------
    before, after : LabelMap
        Tissues in the image and in its translation; None where none are found in the translation.
    safety : Safety
        The numbers.
    problems : tuple of str
        What did not pass, and what could not be told.
    """

    before: LabelMap
    after: LabelMap | None
    safety: Safety
    problems: tuple[str, ...]


def compare_translation(image: Image, fake: Image, translator: Translator) -> ComparedTranslation:
    """Compare an image with its translation, muscle and compartment as the tissue segmenter finds them in each.

    Parameters
    ----------
    image, fake : Image
        What went in and what came out.
    translator : Translator
        What translated; the card of a network says what it was trained to do.

    Raises
    ------
    VoxelError, ModalityError, SegmentationError
        If there is nothing to see in the image.
    """
    card: Any = translator.card if isinstance(translator, NetworkTranslator) else None
    tissue = TissueSegmenter()
    before = tissue.segment(image)
    after: LabelMap | None = None
    lost = []
    if not before.mask("muscle").any():
        lost.append("no muscle can be found in the image: what became of it cannot be told")
    try:
        after = tissue.segment(fake)
    except (InputError, SegmentationError) as problem:
        lost.append(f"no tissue can be found in the translation: {problem}")
    found = safety(
        image,
        fake,
        before=before,
        after=after,
        monotone=None if card is None else card.monotone,
        window=None if card is None else card.windows[0],
        deciles=None if card is None else card.source_deciles,
    )
    return ComparedTranslation(before, after, found, (*lost, *found.warnings()))


def translated_part(method: object) -> Translated | None:
    """Return the part of a method that translates; None where it looks at the image itself."""
    while not isinstance(method, Translated):
        if not hasattr(method, "segmenter"):
            return None
        method = method.segmenter
    return method


def translation_problems(method: Segmenter, image: Image) -> tuple[str, ...]:
    """Say what a method's translation of an image did not keep; nothing where it does not translate it."""
    part = translated_part(method)
    if part is None:
        return ()
    fake = part.translate(image)
    if fake is image:
        return ()
    try:
        return compare_translation(image, fake, part.translator).problems
    except (InputError, SegmentationError) as problem:
        return (f"it cannot be checked: {problem}",)
