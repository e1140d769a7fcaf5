"""Write a cohort of digital thighs: images, exact label maps, a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from musclekit.errors import ParameterError
from musclekit.io import ManifestRow, write_image, write_label_table, write_labels, write_manifest
from musclekit.labels import label_set
from musclekit.phantom import GRADES, Grade, Legs, PhantomModality, Scanner, make_cohort
from musclekit.workflows.outcome import OnProgress

__all__ = ["LEGS", "write_phantoms"]

#: What the scans of a cohort can show.
LEGS = ("both", "left", "right", "alternate")


def write_phantoms(
    out: Path,
    *,
    subjects: int = 4,
    modalities: Sequence[str] = ("mr",),
    grades: Sequence[str] = ("healthy", "severe"),
    slices: int = 20,
    size: int = 256,
    leg: str = "both",
    reference: str | None = None,
    scanner: Scanner | None = None,
    seed: int = 0,
    prefix: str = "sub",
    progress: OnProgress | None = None,
) -> Path:
    """Write a synthetic cohort.

    Parameters
    ----------
    out : Path
        Folder to write to.
    subjects : int
        How many people.
    modalities : sequence of {"mr", "ct", "dixon"}
        What each of them is scanned with.
    grades : sequence of {"healthy", "minor", "moderate", "severe"}
        Dealt to the people in turn.
    slices, size : int
        Planes of each volume, and its rows and columns.
    leg : {"both", "left", "right", "alternate"}
        Which legs the scans show; ``alternate``: the left one of the first person, the right one of the second ...
    reference : str, optional
        Label set of the label maps; ``thigh-full-sided`` where not given, and ``thigh-full`` for a single leg.
    scanner : Scanner, optional
        What the scanner adds, as that of another hospital; the default of each contrast if left out.
    seed : int
        The same seed gives the same cohort.
    prefix : str
        What the names of people begin with; those of cohorts that one learns from and is tried on have to differ.
    progress : callable, optional
        Called after each case with (done, total, case id).

    Returns
    -------
    Path
        ``manifest.csv``. Beside it ``<subject>_<contrast>.nii.gz``, ``<case>_dseg.nii.gz`` and its label table.

    Raises
    ------
    ParameterError
        If a modality or grade does not exist, or a number is out of range.
    """
    for what, given, known in (("modality", modalities, get_args(PhantomModality)), ("grade", grades, GRADES)):
        strange = [name for name in given if name not in known]
        if strange or not given:
            raise ParameterError(f"{what} is any of {', '.join(known)}, not '{', '.join(strange)}'")
    if slices < 1 or size < 16:
        raise ParameterError(f"a phantom has 1 or more slices of 16 pixels or more, not {slices} of {size}")
    if leg not in LEGS:
        raise ParameterError(f"leg is any of {', '.join(LEGS)}, not '{leg}'")
    if reference is not None:
        label_set(reference)
    shown = ("left", "right") if leg == "alternate" else (leg,)
    cases = make_cohort(
        subjects,
        modalities=cast(Sequence[PhantomModality], modalities),
        grades=cast(Sequence[Grade], grades),
        legs=cast(Sequence[Legs], shown),
        shape=(slices, size, size),
        reference=reference,
        scanner=scanner,
        seed=seed,
        prefix=prefix,
    )
    rows = []
    for done, case in enumerate(cases, start=1):
        labels = out / f"{case.id}_dseg.nii.gz"
        if case.reference is not None:
            write_labels(case.reference, labels)
            write_label_table(case.reference.label_set, out / f"{case.id}_dseg.tsv")
        for contrast, image in case.images.items():
            path = out / f"{case.subject}_{contrast}.nii.gz"
            write_image(image, path)
            rows.append(
                ManifestRow(
                    case_id=case.id,
                    subject=case.subject,
                    image=path,
                    labels=labels,
                    modality=contrast,
                    domain=case.domain,
                    side=case.side,
                    split=None,
                    extra={key: str(value) for key, value in case.meta.items()},
                )
            )
        if progress is not None:
            progress(done, subjects * len(modalities), case.id)
    manifest = out / "manifest.csv"
    write_manifest(rows, manifest)
    return manifest
