"""Cases and cohorts of phantoms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np

from musclekit.errors import ParameterError
from musclekit.image import Case, Contrast
from musclekit.phantom.contrast import Scanner
from musclekit.phantom.shape import GRADES, Grade
from musclekit.phantom.thigh import Legs, make_thigh, render

__all__ = ["CONTRASTS_OF", "PhantomModality", "make_case", "make_cohort"]

PhantomModality = Literal["mr", "ct", "dixon"]

#: What each modality of a cohort is scanned with.
CONTRASTS_OF: dict[PhantomModality, tuple[Contrast, ...]] = {
    "mr": (Contrast.T1W,),
    "ct": (Contrast.CT,),
    "dixon": (Contrast.FAT, Contrast.WATER),
}


def make_case(
    seed: int,
    *,
    contrasts: Sequence[Contrast] = (Contrast.T1W,),
    grade: Grade = "healthy",
    legs: Legs = "both",
    shape: tuple[int, int, int] = (20, 256, 256),
    spacing: tuple[float, float, float] | None = None,
    reference: str | None = None,
    scanner: Scanner | None = None,
    id: str | None = None,
    subject: str | None = None,
) -> Case:
    """Make one phantom, scan it, and pack images and truth into a case.

    Parameters
    ----------
    seed : int
        The same seed gives the same person and the same voxels.
    contrasts : sequence of Contrast
        Images to make, all on one grid.
    grade : {"healthy", "minor", "moderate", "severe"}
        Degree of infiltration; the domain is ``"easy"`` for the first two and ``"hard"`` for the others.
    legs : {"both", "left", "right"}
        Which to show.
    shape : tuple of int
        (planes, rows, columns).
    spacing : tuple of float, optional
        Millimetres along (z, y, x); see `make_thigh` for the default.
    reference : str, optional
        Label set of the reference: any that `Phantom.reference` gives. ``thigh-full-sided`` when not given, and
        ``thigh-full`` for a single leg.
    scanner : Scanner, optional
        What the scanner adds; `default_scanner` of each contrast when not given.
    id, subject : str, optional
        Names; made from the seed when not given.

    Returns
    -------
    Case
        Its ``meta`` holds seed, grade and generator version.

    Raises
    ------
    ParameterError
        If a parameter lies outside its range.
    ModalityError
        If a contrast is `Contrast.MR`.

    Examples
    --------
    >>> case = make_case(3, shape=(2, 48, 48), grade="severe", reference="muscle")
    >>> case.image.voxels.shape, case.domain, case.reference.label_set.name
    ((2, 48, 48), 'hard', 'muscle')
    """
    phantom = make_thigh(seed, shape=shape, spacing=spacing, legs=legs, grade=grade)
    images = {contrast: render(phantom, contrast, scanner=scanner) for contrast in contrasts}
    name = reference or ("thigh-full-sided" if legs == "both" else "thigh-full")
    who = subject or f"phantom{seed:04d}"
    return Case(
        id=id or who,
        subject=who,
        images=images,
        reference=phantom.reference(name),
        side=None if legs == "both" else legs,
        domain="easy" if grade in ("healthy", "minor") else "hard",
        meta={"grade": grade, "seed": seed, "generator_version": phantom.version},
    )


def make_cohort(
    subjects: int,
    *,
    modalities: Sequence[PhantomModality] = ("mr",),
    grades: Sequence[Grade] = ("healthy", "severe"),
    legs: Legs | Sequence[Legs] = "both",
    shape: tuple[int, int, int] = (20, 256, 256),
    spacing: tuple[float, float, float] | None = None,
    reference: str | None = None,
    scanner: Scanner | None = None,
    seed: int = 0,
    prefix: str = "sub",
) -> Iterator[Case]:
    """Make a cohort, one case at a time.

    Parameters
    ----------
    subjects : int
        How many people. Each is scanned once with every modality.
    modalities : sequence of {"mr", "ct", "dixon"}
        ``"mr"`` is T1-weighted; ``"dixon"`` makes one case with a fat and a water image.
    grades : sequence of {"healthy", "minor", "moderate", "severe"}
        Dealt to the people in turn.
    legs : {"both", "left", "right"} or sequence of these
        Which to show; several are dealt to the people in turn.
    shape, spacing, reference, scanner
        As in `make_case`.
    seed : int
        Two cohorts of one seed are alike; the first people of a larger cohort are those of a smaller one.
    prefix : str
        What names begin with, letters and digits: people of two cohorts need names that differ, for no evaluation
        takes a subject of the name of one that a method has learnt from.

    Yields
    ------
    Case
        Named ``sub-01_mr``, ``sub-01_ct``, ... (with that prefix): every case of one person carries the same subject
        and the same anatomy.

    Raises
    ------
    ParameterError
        If there is nobody, no modality or no grade, or one that is unknown, or the prefix cannot begin a name.
    """
    if subjects < 1:
        raise ParameterError(f"a cohort has at least one subject, not {subjects}")
    if not (prefix.isascii() and prefix.isalnum()):
        raise ParameterError(f"a prefix has letters and digits and nothing else, not '{prefix}'")
    _check("modality", modalities, get_args(PhantomModality))
    _check("grade", grades, GRADES)
    shown = (legs,) if isinstance(legs, str) else tuple(legs)
    _check("leg", shown, get_args(Legs))
    return (
        make_case(
            int(person),
            contrasts=CONTRASTS_OF[modality],
            grade=grades[n % len(grades)],
            legs=shown[n % len(shown)],
            shape=shape,
            spacing=spacing,
            reference=reference,
            scanner=scanner,
            id=f"{prefix}-{n + 1:02d}_{modality}",
            subject=f"{prefix}-{n + 1:02d}",
        )
        for n, person in enumerate(_seeds(seed, subjects))
        for modality in modalities
    )


def _seeds(seed: int, subjects: int) -> list[int]:
    """One seed a person, none of which depends on how many people there are."""
    return [int(np.random.SeedSequence([seed, n]).generate_state(1)[0]) for n in range(subjects)]


def _check(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    if not given:
        raise ParameterError(f"a cohort needs at least one {what}: {', '.join(known)}")
    for name in given:
        if name not in known:
            raise ParameterError(f"{what} is one of {', '.join(known)}, not '{name}'")
