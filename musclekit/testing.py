"""The contract of a method, as checks that anyone can run on their own.

``check_segmenter(MySegmenter())`` and ``check_translator(MyTranslator())`` raise an AssertionError that names the
first clause broken; a method that learns is fitted first, on ``example_cases("muscle")``. Every method registered in
musclekit passes them in its tests.
"""

from __future__ import annotations

import pickle
import warnings
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from musclekit.errors import InputError, ModalityError, MusclekitError, NotFittedError, VoxelError
from musclekit.image import Case, Contrast, Grid, Image, LabelMap
from musclekit.labels import Side
from musclekit.labels import label_set as named_label_set
from musclekit.protocols import ProbabilisticSegmenter, Refiner, Segmenter, Translator

__all__ = ["check_refiner", "check_segmenter", "check_translator", "example_cases", "example_image"]

#: Grey values of air, skin, fat, muscle, cortical bone and marrow.
_GREYS: dict[Contrast, tuple[float, float, float, float, float, float]] = {
    Contrast.CT: (-1000, 20, -100, 55, 1200, -40),
    Contrast.T1W: (10, 250, 900, 300, 40, 850),
    Contrast.T2W: (10, 200, 700, 200, 30, 650),
    Contrast.STIR: (10, 200, 60, 350, 20, 60),
    Contrast.FAT: (10, 100, 950, 60, 30, 900),
    Contrast.WATER: (10, 300, 60, 800, 40, 80),
    Contrast.MR: (10, 250, 900, 300, 40, 850),
}

#: Outer radius of muscle and of bone, in radii of the example's thigh.
_MUSCLE, _BONE = 0.78, 0.2


def example_image(
    contrast: Contrast,
    *,
    shape: tuple[int, int, int] = (6, 96, 96),
    spacing: tuple[float, float, float] = (5.0, 2.0, 2.0),
    seed: int = 0,
) -> Image:
    """Return a small, simple thigh: concentric skin, fat, muscle, cortex and marrow, with noise.

    Parameters
    ----------
    contrast : Contrast
        What it is an image of.
    shape : tuple of int
        (planes, rows, columns).
    spacing : tuple of float
        Millimetres along (z, y, x).
    seed : int
        Of the noise.

    Returns
    -------
    Image
        CT in Hounsfield units, MR between 0 and about 1000. For more than smoke tests see `musclekit.phantom`.
    """
    radius = np.hypot(*_from_centre(shape, spacing))
    air, skin, fat, muscle, cortex, marrow = _GREYS[contrast]
    plane = np.full(shape[1:], air, dtype=np.float32)
    for share, value in ((1.0, skin), (0.96, fat), (_MUSCLE, muscle), (_BONE, cortex), (0.12, marrow)):
        plane[radius <= share] = value
    noise = np.random.default_rng(seed).normal(0, 10, shape).astype(np.float32)
    voxels = plane[None] + noise
    if contrast is not Contrast.CT:
        voxels = np.abs(voxels)
    return Image(voxels, Grid.from_spacing(shape, spacing), contrast)


def _from_centre(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns from the middle of the plane, in radii of the example's thigh."""
    _, rows, columns = shape
    reach = 0.42 * min(rows * spacing[1], columns * spacing[2])
    y = (np.arange(rows, dtype=np.float64) - (rows - 1) / 2) * (spacing[1] / reach)
    x = (np.arange(columns, dtype=np.float64) - (columns - 1) / 2) * (spacing[2] / reach)
    return y[:, None], x[None, :]


def example_cases(
    label_set: str,
    contrast: Contrast = Contrast.T1W,
    *,
    subjects: int = 3,
    shape: tuple[int, int, int] = (6, 96, 96),
    spacing: tuple[float, float, float] = (5.0, 2.0, 2.0),
) -> list[Case]:
    """Return annotated cases to fit a method on: `example_image` with its muscle dealt out to the labels of a set.

    Parameters
    ----------
    label_set : str
        Name of the set of the references; its labels share the ring of muscle, sector by sector.
    contrast : Contrast
        Of the images.
    subjects : int
        How many people, one case each, right and left thighs in turn.
    shape, spacing
        As in `example_image`.

    Returns
    -------
    list of Case
        The thighs differ in noise only.
    """
    labels = named_label_set(label_set)
    y, x = _from_centre(shape, spacing)
    radius = np.hypot(y, x)
    sector = np.floor((np.arctan2(y, x) / (2 * np.pi) % 1) * len(labels)).astype(np.intp)
    ids = np.array([label.id for label in labels], dtype=np.uint16)
    plane = np.where((radius > _BONE) & (radius <= _MUSCLE), ids[sector], np.uint16(0))
    cases = []
    for n in range(subjects):
        image = example_image(contrast, shape=shape, spacing=spacing, seed=100 + n)
        reference = LabelMap(np.broadcast_to(plane, shape), image.grid, labels)
        name = f"example-{n + 1}"
        side: Side = "right" if n % 2 == 0 else "left"
        cases.append(Case(id=name, subject=name, images={contrast: image}, reference=reference, side=side))
    return cases


def _require(condition: bool, clause: str) -> None:
    if not condition:
        raise AssertionError(clause)


def _contrast_for(method: Segmenter | Translator) -> Contrast:
    _require(bool(method.contrasts), "a method accepts at least one contrast")
    preferred = (Contrast.CT, Contrast.T1W, Contrast.FAT)
    return next((c for c in preferred if c in method.contrasts), min(method.contrasts))


def _check_parameters(method: Any) -> None:
    twin = clone(method)
    _require(twin is not method, "clone makes a new object")
    for key, value in method.get_params(deep=False).items():
        other = twin.get_params(deep=False)[key]
        same = type(other) is type(value) if hasattr(value, "get_params") else bool(np.all(other == value))
        _require(same, f"clone keeps the parameter {key}")
    method.set_params(**method.get_params(deep=False))


def _refuses(call: Any, image: Image, error: type[MusclekitError], clause: str) -> None:
    try:
        call(image)
    except error as problem:
        _require(len(str(problem)) > 10, f"{clause}: the error says what is wrong")
        return
    raise AssertionError(clause)


def _images(contrast: Contrast) -> dict[str, Image]:
    return {
        "a small volume": example_image(contrast),
        "one plane": example_image(contrast, shape=(1, 96, 96)),
        "anisotropic spacing": example_image(contrast, shape=(3, 128, 96), spacing=(12.0, 1.5, 2.5)),
        "axes that run the other way": _turned(example_image(contrast, shape=(2, 96, 96))),
    }


def _turned(image: Image) -> Image:
    """Return the image on a grid whose first and last axis point down and to the left."""
    affine = image.grid.affine.copy()
    affine[:3, [0, 2]] *= -1
    return Image(image.voxels, Grid(image.grid.shape, affine), image.contrast)


def _check_bad_images(call: Any, contrasts: frozenset[Contrast], contrast: Contrast) -> None:
    image = example_image(contrast)
    constant = image.with_voxels(np.full(image.grid.shape, 7.0))
    _refuses(call, constant, VoxelError, "a constant image is refused with a VoxelError")
    try:
        image.with_voxels(np.full(image.grid.shape, np.nan))
    except VoxelError:
        pass
    else:
        raise AssertionError("an image cannot hold NaN")
    for other in sorted(set(Contrast) - contrasts):
        wrong = example_image(other)
        _refuses(call, wrong, ModalityError, f"a {other} image is refused with a ModalityError")


def _same_voxels(one: LabelMap, two: LabelMap) -> bool:
    return bool(np.array_equal(one.voxels, two.voxels))


def check_segmenter(segmenter: Segmenter, image: Image | None = None) -> None:
    """Check that a segmenter keeps the contract.

    Purity (same answer twice, input and parameters untouched), grid kept, also one whose axes run the other way, ids
    inside the label set, ``clone`` / ``get_params`` round trip, pickling, one-plane volumes, anisotropic spacing,
    refusal of contrasts it does not take, of constant images and of NaN; probabilities that sum to one, where there are
    any. An unfitted copy either works without annotated cases or says that it needs some. A method may warn.

    Parameters
    ----------
    segmenter : Segmenter
        Fitted, when it needs fitting.
    image : Image, optional
        An image it can segment, instead of `example_image`.

    Raises
    ------
    AssertionError
        Naming the clause that is broken.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        _check_segmenter(segmenter, image)


def _check_segmenter(segmenter: Segmenter, image: Image | None) -> None:
    _require(isinstance(segmenter, Segmenter), "a segmenter has label_set, contrasts, fit and segment")
    _check_parameters(segmenter)
    contrast = image.contrast if image is not None else _contrast_for(segmenter)
    parameters = repr(cast(Any, segmenter).get_params())
    twin = cast(Segmenter, pickle.loads(pickle.dumps(segmenter)))
    for what, tried in ({"the given image": image} if image is not None else _images(contrast)).items():
        before: NDArray[np.float32] = tried.voxels.copy()
        labels = segmenter.segment(tried)
        _require(bool(np.array_equal(before, tried.voxels)), f"segment leaves its input untouched ({what})")
        _require(labels.grid.same_as(tried.grid), f"labels lie on the grid of the image ({what})")
        _require(labels.label_set == segmenter.label_set, f"labels are in the segmenter's label set ({what})")
        _require(_same_voxels(labels, segmenter.segment(tried)), f"segment gives the same labels twice ({what})")
        _require(_same_voxels(labels, twin.segment(tried)), f"a pickled copy gives the same labels ({what})")
        if isinstance(segmenter, ProbabilisticSegmenter):
            total = segmenter.probabilities(tried).voxels.sum(axis=0)
            _require(bool(np.allclose(total, 1, atol=1e-4)), f"probabilities sum to one ({what})")
    _require(repr(cast(Any, segmenter).get_params()) == parameters, "segment leaves the parameters untouched")
    _check_bad_images(segmenter.segment, segmenter.contrasts, contrast)
    _check_unfitted(clone(segmenter), image if image is not None else example_image(contrast))


def _check_unfitted(segmenter: Segmenter, image: Image) -> None:
    """Check that a method that learns refuses to work unfitted and to learn from nothing; any other does both."""
    try:
        segmenter.segment(image)
    except NotFittedError as problem:
        _require("fit" in str(problem), "an unfitted method says that it has to be fitted")
        _refuses(lambda _: segmenter.fit([]), image, InputError, "a method that learns refuses to be fitted on nothing")
    else:
        _require(segmenter.fit([]) is segmenter, "fit returns the method itself")


def check_translator(translator: Translator, image: Image | None = None) -> None:
    """Check that a translator keeps the contract: purity, grid kept, finite values, target contrast, refusals.

    Parameters and errors are those of `check_segmenter`.
    """
    _require(isinstance(translator, Translator), "a translator has contrasts, source, target and translate")
    _check_parameters(translator)
    contrast = image.contrast if image is not None else _contrast_for(translator)
    twin = cast(Translator, pickle.loads(pickle.dumps(translator)))
    for what, tried in ({"the given image": image} if image is not None else _images(contrast)).items():
        before = tried.voxels.copy()
        fake = translator.translate(tried)
        _require(bool(np.array_equal(before, tried.voxels)), f"translate leaves its input untouched ({what})")
        _require(fake.grid.same_as(tried.grid), f"the translation lies on the grid of the image ({what})")
        expected = tried.contrast if translator.target is None else translator.target.contrast
        _require(fake.contrast is expected, f"the translation has the target's contrast ({what})")
        again = translator.translate(tried)
        _require(bool(np.array_equal(fake.voxels, again.voxels)), f"translate gives the same image twice ({what})")
        copied = twin.translate(tried)
        _require(bool(np.array_equal(fake.voxels, copied.voxels)), f"a pickled copy gives the same image ({what})")
    for other in sorted(set(Contrast) - translator.contrasts):
        _refuses(translator.translate, example_image(other), ModalityError, f"a {other} image is refused")


def check_refiner(refiner: Refiner, labels: LabelMap, image: Image) -> None:
    """Check that a refiner keeps the contract: purity, grid and label set kept, the same answer twice."""
    _require(isinstance(refiner, Refiner), "a refiner has refine")
    _check_parameters(refiner)
    before = labels.voxels.copy()
    refined = refiner.refine(labels, image)
    _require(bool(np.array_equal(before, labels.voxels)), "refine leaves its input untouched")
    _require(refined.grid.same_as(labels.grid), "refined labels lie on the same grid")
    _require(refined.label_set == labels.label_set, "refined labels are in the same label set")
    _require(_same_voxels(refined, refiner.refine(labels, image)), "refine gives the same labels twice")
    twin = pickle.loads(pickle.dumps(refiner))
    _require(_same_voxels(refined, twin.refine(labels, image)), "a pickled copy gives the same labels")
