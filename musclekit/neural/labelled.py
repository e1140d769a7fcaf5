"""Labelled scans as a network learns from them: brought to its view, in its range, with the classes it is to give."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from musclekit.anatomy import Frame, body_mask, label_sides, split_legs
from musclekit.errors import InputError, LabelError, MusclekitError
from musclekit.image import Case, Contrast, Image, LabelMap
from musclekit.labels import LabelSet, Side, label_mapping
from musclekit.neural.views import AIR, ViewSpec, labels_in, unit_image, views_of
from musclekit.neural.windows import Window

__all__ = [
    "UNLABELLED",
    "LabelledScan",
    "LabelledView",
    "check_classes",
    "check_shown",
    "class_table",
    "labelled_views",
]

#: Class of a voxel that nothing is known of.
UNLABELLED = 255


@dataclass(frozen=True, eq=False)
class LabelledView:
    """One view of a labelled scan.

    Parameters
    ----------
    image : ndarray of float16, shape (Z, Y, X)
        In the network's range -1 to 1.
    classes : ndarray of uint8, shape (Z, Y, X)
        0 for background, n for the n-th label of the set, 255 where nothing is known.
    frame : Frame
        From the grid of the scan.
    side : {"left", "right"} or None
        Of the leg.
    """

    image: NDArray[np.float16]
    classes: NDArray[np.uint8]
    frame: Frame
    side: Side | None


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """One labelled scan.

    Parameters
    ----------
    id, subject : str
        Of the case.
    contrast : Contrast
        Of the image.
    views : tuple of LabelledView
        One, or one for each leg that shows a label.
    dropped : tuple of str
        Labels of the case that have no place in the network's set; they are background to it.
    warnings : tuple of str
        See `musclekit.neural.views.View`.
    """

    id: str
    subject: str
    contrast: Contrast
    views: tuple[LabelledView, ...]
    dropped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def deciles(self) -> NDArray[np.float64]:
        """Deciles of the grey values (-1 to 1) of what is seen."""
        seen = np.concatenate([view.image[view.image > AIR] for view in self.views]).astype(np.float64)
        found: NDArray[np.float64] = np.quantile(seen if seen.size else np.array([AIR]), np.arange(1, 10) / 10)
        return found


def class_table(label_set: LabelSet) -> NDArray[np.uint8]:
    """Lookup table from ids to classes: the n-th label of the set is class n."""
    table = np.zeros(max(label_set.ids) + 1, dtype=np.uint8)
    for n, label in enumerate(label_set, start=1):
        table[label.id] = n
    return table


def labelled_views(
    cases: Iterable[Case],
    label_set: LabelSet,
    spec: ViewSpec,
    windows: Mapping[Contrast, Window],
    *,
    multiple: int = 1,
    unlabelled_is_background: bool = False,
) -> tuple[LabelledScan, ...]:
    """Bring labelled cases to the views of a network.

    Parameters
    ----------
    cases : iterable of Case
        One at a time is enough: they are not kept. Each image of a known contrast is a scan of its own.
    label_set : LabelSet
        What the network is to give; the labels of a case are mapped to it, and told apart by side if it has sides.
    spec, multiple
        See `musclekit.neural.views.views_of`.
    windows : mapping of Contrast to Window
        The contrasts that the network takes, and how their grey values become -1 to 1.
    unlabelled_is_background : bool
        Whether slices of a leg without any label are background. Else nothing is known of them, as where somebody
        labelled the middle of a thigh only, or every fifth slice.

    Returns
    -------
    tuple of LabelledScan
        At least one.

    Raises
    ------
    InputError
        If there is no case, a case has no labels, no image of the contrasts or no labelled voxel in view; the message
        names the case.
    LabelError
        If its labels cannot be mapped to the set.
    VoxelError, ModalityError, SegmentationError
        As `views_of` does; the message names the case.
    """
    scans = []
    for case in cases:
        reference = case.reference
        if reference is None:
            raise InputError(f"case '{case.id}' has no labels: a segmenter learns from labelled scans")
        images = [image for contrast, image in case.images.items() if contrast in windows]
        if not images:
            raise InputError(
                f"case '{case.id}' has no image of {', '.join(windows)}, only {', '.join(case.images)}: the network is "
                "trained on these contrasts"
            )
        try:
            mapped, dropped = _mapped(reference, label_set, images[0], case.side)
            for image in images:
                window = windows[image.contrast]
                scans.append(
                    _scan(
                        case,
                        image,
                        mapped,
                        dropped,
                        spec,
                        window,
                        multiple,
                        unlabelled_is_background=unlabelled_is_background,
                    )
                )
        except MusclekitError as error:
            raise type(error)(f"case '{case.id}': {error}") from error
    if not scans:
        raise InputError("there is no labelled case to learn from")
    return tuple(scans)


def _scan(
    case: Case,
    image: Image,
    labels: LabelMap,
    dropped: tuple[str, ...],
    spec: ViewSpec,
    window: Window,
    multiple: int,
    *,
    unlabelled_is_background: bool,
) -> LabelledScan:
    body = body_mask(image)
    scale = window.scale_of(image, body)
    seen: list[LabelledView] = []
    notes: list[str] = []
    for view in views_of(image, spec, multiple=multiple, body=body, side=case.side):
        notes += view.warnings
        classes = class_table(labels.label_set)[labels_in(labels, view).voxels]
        if not classes.any():
            notes.append(f"the {view.side or 'single'} leg shows no label, and is not learnt from")
            continue
        if not unlabelled_is_background:
            # On the grid of the scan: slices may lie across those of a view that is turned.
            labelled = np.asarray(np.logical_and(labels.voxels > 0, view.mask).any(axis=(1, 2)))
            known = view.frame.apply_mask(np.broadcast_to(labelled[:, None, None], view.mask.shape))
            classes[~known] = UNLABELLED
            first, last = np.flatnonzero(labelled)[[0, -1]]
            between = int(np.count_nonzero(~labelled[first:last]))
            if between:
                notes.append(
                    f"{between} slices between labelled ones show no label of the {view.side or 'single'} leg, and are "
                    "not learnt from (unlabelled_is_background = true makes them background)"
                )
        seen.append(LabelledView(unit_image(image, view, scale).astype(np.float16), classes, view.frame, view.side))
    if not seen:
        raise InputError("none of its labels lies in the body")
    return LabelledScan(case.id, case.subject, image.contrast, tuple(seen), dropped, tuple(notes))


def _mapped(labels: LabelMap, label_set: LabelSet, image: Image, side: Side | None) -> tuple[LabelMap, tuple[str, ...]]:
    """Return labels in the network's set, and what was dropped on the way."""
    if label_set.is_sided and not labels.label_set.is_sided:
        labels = label_sides(labels, split_legs(image, body_mask(image), side=side))
    if labels.label_set.name == label_set.name:
        return labels, ()
    mapping = label_mapping(labels.label_set, label_set)
    present = set(np.unique(labels.voxels).tolist())
    lost = dict.fromkeys(
        label.name for label in labels.label_set if label.id in present and label.id not in mapping.ids
    )
    mapped = labels.mapped(mapping)
    if not mapped.voxels.any():
        raise LabelError(f"none of its labels ({', '.join(lost) or 'none'}) has a place in '{label_set.name}'")
    return mapped, tuple(lost)


def check_classes(scans: Iterable[LabelledScan], label_set: LabelSet, where: str = "the cases to train on") -> None:
    """Refuse scans that lack a class: a network cannot learn what it is never shown.

    Parameters
    ----------
    scans : iterable of LabelledScan
        What is learnt from.
    label_set : LabelSet
        What the network is to give.
    where : str
        What they are called in the message.

    Raises
    ------
    LabelError
        If a label of the set is in none of them; the message names it.
    """
    present: set[int] = set()
    for scan in scans:
        for view in scan.views:
            present |= set(np.flatnonzero(np.bincount(view.classes.reshape(-1), minlength=256)).tolist())
    check_shown(present, label_set, where)


def check_shown(present: Collection[int], label_set: LabelSet, where: str) -> None:
    """Refuse what shows some of the classes only; see `check_classes`."""
    missing = [label.full_name for n, label in enumerate(label_set, start=1) if n not in present]
    if missing:
        raise LabelError(
            f"{where} show no {', '.join(missing)}: a network cannot learn what it is never shown; choose a smaller "
            "label set, or add cases"
        )
