"""Muscle against background by a minimum cut, found in the band of voxels that are in doubt.

A binary labelling has a cost for each voxel and a price for each pair of neighbours that differ; the cheapest labelling
is a minimum cut of a graph (Greig et al. 1989; Boykov and Kolmogorov 2004, whose solver PyMaxflow wraps). Most voxels
of a scan need no graph: their own cost outweighs whatever their neighbours could say. They are labelled first, by rules
that no cheapest labelling can break, and the graph is built for the rest alone. The result is that of the whole graph,
voxel by voxel.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, NamedTuple, cast, get_args

import cv2
import maxflow
import numpy as np
from numpy.typing import NDArray

from musclekit.checks import check_number
from musclekit.errors import GeometryError, ParameterError, VoxelError

__all__ = [
    "BACKGROUND",
    "FREE",
    "MUSCLE",
    "BinaryProblem",
    "Connectivity",
    "Neighbourhood",
    "cut_energy",
    "mean_squared_difference",
    "min_cut",
    "neighbourhood",
]

Connectivity = Literal[4, 8, 6, 18, 26]
Offset = tuple[int, int, int]

#: What `BinaryProblem.fixed` holds.
FREE, BACKGROUND, MUSCLE = -1, 0, 1

#: Axes along which the neighbours of each connectivity may lie, and how many coordinates may differ at once.
_REACH: dict[int, tuple[tuple[int, int, int], int]] = {
    4: ((0, 1, 1), 1),
    8: ((0, 1, 1), 2),
    6: ((1, 1, 1), 1),
    18: ((1, 1, 1), 2),
    26: ((1, 1, 1), 3),
}

#: Capacities are whole numbers, so that sums are exact and ties are ties; all of them together stay below this.
_TOTAL_CAPACITY = 2.0**60
_FINEST_SCALE = 2.0**44

#: While more than this share of the grid is in doubt, larger windows are tried; fewer voxels are sooner cut.
_FEW = 0.005

#: A rule for whole windows is believed only with this margin: it is checked in single precision.
_MARGIN = 1e-5

#: State of a voxel outside the grid, in the padded array of states.
_NONE = 3
_UNDECIDED = 2

#: How a neighbour's state sways a voxel: towards background, muscle, or neither yet.
_SIDE = np.array([-1, 1, 0, 0], dtype=np.int64)

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)


@dataclass(frozen=True)
class Neighbourhood:
    """Which voxels are neighbours, and what it costs to part them.

    Parameters
    ----------
    offsets : tuple of (int, int, int)
        Steps (z, y, x) to the neighbours, one of each opposite pair.
    weights : tuple of float
        One for each offset, not negative.
    """

    offsets: tuple[Offset, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class BinaryProblem:
    r"""Which labelling of a grid is sought: the cheapest one.

    .. math:: E(L) = \sum_x D_x(L_x) + \lambda \sum_{(x, y)} w_{xy} [L_x \ne L_y]

    Parameters
    ----------
    background_cost, muscle_cost : ndarray of float, shape (Z, Y, X)
        Cost :math:`D_x` of calling a voxel background, and of calling it muscle; finite. Only the difference decides.
    neighbourhood : Neighbourhood
        The pairs and their weights :math:`w_{xy}`.
    smoothness : float
        Factor :math:`\lambda` of every weight.
    fixed : ndarray of int8, shape (Z, Y, X), optional
        FREE (-1), BACKGROUND (0) or MUSCLE (1): labels that are given. All are free when not given.
    guide : ndarray of float, shape (Z, Y, X), optional
        Grey values I; every weight is then multiplied by :math:`\exp(-(I_x - I_y)^2 / 2 \beta^2)`, so that the
        boundary runs along edges of the image.
    guide_variance : float
        :math:`\beta^2` in squared grey values, as `mean_squared_difference` gives it.

    Raises
    ------
    GeometryError
        If the arrays are not three-dimensional or differ in shape.
    ParameterError
        If smoothness, a weight or the variance is negative or no number, or `fixed` holds other values.
    """

    background_cost: NDArray[np.floating]
    muscle_cost: NDArray[np.floating]
    neighbourhood: Neighbourhood
    smoothness: float
    fixed: NDArray[np.int8] | None = None
    guide: NDArray[np.floating] | None = None
    guide_variance: float = 1.0

    def __post_init__(self) -> None:
        shape = self.background_cost.shape
        for name in ("background_cost", "muscle_cost", "fixed", "guide"):
            array = getattr(self, name)
            if array is not None and (array.ndim != 3 or array.shape != shape):
                raise GeometryError(f"{name} has shape {array.shape}; a cut needs (z, y, x), the same for all: {shape}")
        check_number("smoothness", self.smoothness, least=0)
        for weight in self.neighbourhood.weights:
            check_number("the weight of a neighbour", weight, least=0)
        if self.guide is not None:
            check_number("guide_variance", self.guide_variance, above=0)
        if self.fixed is not None and self.fixed.size and (self.fixed.min() < FREE or self.fixed.max() > MUSCLE):
            raise ParameterError("fixed must hold -1 (free), 0 (background) or 1 (muscle) alone")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the grid (Z, Y, X)."""
        return cast("tuple[int, int, int]", self.background_cost.shape)


def neighbourhood(connectivity: Connectivity, spacing: tuple[float, float, float]) -> Neighbourhood:
    r"""Neighbours within a slice (4, 8) or in space (6, 18, 26), weighted by how far they are.

    The weight of a step is :math:`\sqrt{\Delta y \Delta x}` over its length in mm: 1 along the axes of square pixels,
    :math:`1/\sqrt 2` along their diagonals, :math:`\Delta x / \Delta z` to the next slice. The sum over the parted
    pairs then measures the boundary as Cauchy and Crofton do, in pixel edges a slice (Boykov and Kolmogorov 2003):
    voxels that are long along z weigh little along z.

    Parameters
    ----------
    connectivity : {4, 8, 6, 18, 26}
        How many neighbours an inner voxel has.
    spacing : (float, float, float)
        Size of a voxel in mm (z, y, x).

    Returns
    -------
    Neighbourhood

    Raises
    ------
    ParameterError
        If the connectivity is none of these.

    Examples
    --------
    >>> neighbourhood(6, (5.0, 1.0, 1.0)).weights
    (1.0, 1.0, 0.2)
    """
    if connectivity not in get_args(Connectivity):
        allowed = ", ".join(str(n) for n in get_args(Connectivity))
        raise ParameterError(f"neighbourhood must be one of {allowed}, not {connectivity!r}")
    axes, most = _REACH[connectivity]
    steps = itertools.product(*(range(-reach, reach + 1) for reach in axes))
    offsets = [step for step in steps if step > (0, 0, 0) and sum(abs(k) for k in step) <= most]
    pixel = math.sqrt(spacing[1] * spacing[2])
    lengths = [math.hypot(*(k * mm for k, mm in zip(step, spacing, strict=True))) for step in offsets]
    return Neighbourhood(tuple(cast("list[Offset]", offsets)), tuple(pixel / length for length in lengths))


def mean_squared_difference(
    guide: NDArray[np.floating], pairs: Neighbourhood, inside: NDArray[np.bool_] | None = None
) -> float:
    r"""Mean of :math:`(I_x - I_y)^2` over the neighbours: the :math:`\beta^2` of the contrast term.

    Parameters
    ----------
    guide : ndarray of float, shape (Z, Y, X)
        Grey values.
    pairs : Neighbourhood
        Which voxels are neighbours; the weights play no part.
    inside : ndarray of bool, shape (Z, Y, X), optional
        Pairs count where both voxels lie here; everywhere when not given.

    Returns
    -------
    float
        In squared grey values; 0 where there are no pairs.
    """
    total, count = 0.0, 0
    for offset in pairs.offsets:
        near, far = _pair(offset)
        squared = np.square(guide[far] - guide[near], dtype=np.float64)
        if inside is None:
            total, count = total + float(squared.sum()), count + squared.size
        else:
            both = inside[near] & inside[far]
            total, count = total + float(squared.sum(where=both)), count + int(np.count_nonzero(both))
    return total / count if count else 0.0


def cut_energy(problem: BinaryProblem, mask: NDArray[np.bool_]) -> float:
    """Energy of a labelling of the whole grid.

    Parameters
    ----------
    problem : BinaryProblem
        What it is measured by.
    mask : ndarray of bool, shape (Z, Y, X)
        Muscle.

    Returns
    -------
    float
        Costs of the voxels, fixed ones included, plus the weights of the pairs that differ; infinite where the mask
        contradicts a fixed label.

    Raises
    ------
    GeometryError
        If mask and problem differ in shape.
    """
    mask = _checked_mask(problem, mask)
    if problem.fixed is not None and np.any((problem.fixed != FREE) & (problem.fixed != mask)):
        return math.inf
    energy = float(np.where(mask, problem.muscle_cost, problem.background_cost).sum(dtype=np.float64))
    for offset, weight in zip(problem.neighbourhood.offsets, problem.neighbourhood.weights, strict=True):
        near, far = _pair(offset)
        parted = mask[near] != mask[far]
        if problem.guide is None:
            length = float(np.count_nonzero(parted))
        else:
            length = float(_fading(problem, problem.guide[near][parted], problem.guide[far][parted]).sum())
        energy += problem.smoothness * weight * length
    return energy


def min_cut(problem: BinaryProblem) -> NDArray[np.bool_]:
    """Cheapest labelling of a grid.

    Parameters
    ----------
    problem : BinaryProblem
        What is sought.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        Muscle. Of all cheapest labellings the one with the least muscle (what the source of the residual graph still
        reaches), which is one and the same however the cut is found.

    Raises
    ------
    VoxelError
        If a cost is not finite.

    Notes
    -----
    A voxel takes its label without a graph

    - when all of a window that holds it prefers that label so much that the window would take it alone among voxels
      of the other (in the spirit of Lermé and Malgouyres 2014, whose bound holds for one distance and one metric);
    - when its own preference is at least the sum of the weights to its undecided neighbours; this is repeated, as
      every voxel that is decided takes a side for its neighbours.

    Costs are rounded to whole multiples of a power of two, about 1e-12 of the largest that can matter but none finer
    than 6e-14: a labelling is cheapest to that precision. Costs that are all smaller must be scaled up.
    """
    for cost in (problem.background_cost, problem.muscle_cost):
        if not np.isfinite(cost).all():
            raise VoxelError("the costs of a cut must be finite numbers, and some are not; fix labels by `fixed`")
    if problem.smoothness * sum(problem.neighbourhood.weights) == 0:
        # Nothing joins the voxels: each takes what is cheaper.
        return _cheaper(problem)
    mask = np.zeros(problem.shape, dtype=np.bool_)
    if problem.fixed is not None and (problem.fixed == BACKGROUND).all():
        return mask
    box = _box(problem.fixed)
    inner = _cropped(problem, box)
    band = _Band(inner, _settled(inner))
    band.settle()
    band.cut()
    mask[box] = band.muscle()
    return mask


def _checked_mask(problem: BinaryProblem, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    found = np.asarray(mask, dtype=np.bool_)
    if found.shape != problem.shape:
        raise GeometryError(f"the mask has shape {found.shape}, the problem {problem.shape} (z, y, x)")
    return found


def _pair(offset: Offset) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the voxels that have a neighbour at an offset, and of these neighbours."""
    near = tuple(slice(max(0, -k), -k if k > 0 else None) for k in offset)
    far = tuple(slice(max(0, k), k if k < 0 else None) for k in offset)
    return near, far


def _fading(problem: BinaryProblem, here: NDArray[np.floating], there: NDArray[np.floating]) -> NDArray[np.float64]:
    """Factor of the weights between voxels of given grey values."""
    squared = np.square(here.astype(np.float64) - there)
    return np.exp(-squared / (2 * problem.guide_variance))


def _cheaper(problem: BinaryProblem) -> NDArray[np.bool_]:
    """Label each voxel by itself."""
    alone: NDArray[np.bool_] = problem.background_cost > problem.muscle_cost
    return alone if problem.fixed is None else np.where(problem.fixed == FREE, alone, problem.fixed == MUSCLE)


def _box(fixed: NDArray[np.int8] | None) -> tuple[slice, slice, slice]:
    """Box of what is not all fixed as background, with one voxel around: none beyond has a say in its labels."""
    if fixed is None:
        return slice(None), slice(None), slice(None)
    open_ = fixed != BACKGROUND
    rows_and_columns = open_.any(axis=0)
    seen = (open_.reshape(len(open_), -1).any(axis=1), rows_and_columns.any(axis=1), rows_and_columns.any(axis=0))
    ends = (np.flatnonzero(line)[[0, -1]].tolist() for line in seen)
    z, y, x = (slice(max(0, first - 1), last + 2) for first, last in ends)
    return z, y, x


def _cropped(problem: BinaryProblem, box: tuple[slice, slice, slice]) -> BinaryProblem:
    return replace(
        problem,
        background_cost=problem.background_cost[box],
        muscle_cost=problem.muscle_cost[box],
        fixed=None if problem.fixed is None else problem.fixed[box],
        guide=None if problem.guide is None else problem.guide[box],
    )


class _Window(NamedTuple):
    """A box, rounded by growing it a few times by one voxel along the axes: corners are what a cut takes off first.

    Flat windows lie in one plane and grow within it.
    """

    half_height: int
    half_width: int
    rounds: int
    flat: bool = False

    @property
    def height(self) -> int:
        """Planes it takes."""
        return 1 if self.flat else 2 * (self.half_height + self.rounds) + 1


#: Windows that are tried for a common label, one after the other.
_WINDOWS = (
    _Window(0, 0, 0),
    _Window(1, 1, 0),
    _Window(1, 2, 0),
    _Window(1, 3, 1),
    _Window(1, 5, 2),
    _Window(2, 8, 3),
)


def _shape_of(window: _Window) -> NDArray[np.bool_]:
    """Voxels of a window, one empty voxel around them."""
    half = (window.height // 2 + 1, *(window.half_width + window.rounds + 1,) * 2)
    inside = np.zeros([2 * k + 1 for k in half], dtype=np.uint8)
    inside[half] = 1
    return _grown(inside, window).astype(np.bool_)


@cache
def _least_preference(pairs: Neighbourhood, window: _Window) -> float:
    """How much every voxel of a window must prefer a label for the window to take it, at a smoothness of one.

    The worst that the rest of the grid can do to muscle is to be background. A window that is all muscle even then is
    muscle in every cheapest labelling, since more muscle around never makes less muscle inside (the pairs are
    submodular), nor does a greater preference. So the number sought is the least common preference at which the
    window alone, background around it, is cut as muscle and nothing else: the largest ratio, over its parts, of what
    turning a part to background spares to the number of its voxels. Each cut finds a part with a larger ratio
    (Dinkelbach 1967). It comes to little more than the surface of the window over its volume.
    """
    inside = _shape_of(window)
    count = int(np.count_nonzero(inside))
    index = np.full(inside.shape, -1)
    index[inside] = np.arange(count)
    outward = np.zeros(count)
    starts, ends, weights = [], [], []
    for offset, weight in zip(pairs.offsets, pairs.weights, strict=True):
        for sign in (1, -1):
            neighbour = np.roll(index, [-sign * k for k in offset], axis=(0, 1, 2))[inside]
            outward[neighbour < 0] += weight
            if sign == 1:
                joined = np.flatnonzero(neighbour >= 0)
                starts.append(joined)
                ends.append(neighbour[joined])
                weights.append(np.full(len(joined), weight))
    start, end, weight_of = np.concatenate(starts), np.concatenate(ends), np.concatenate(weights)
    ratio = float(outward.mean())
    while True:
        graph = maxflow.GraphFloat(count, len(start))
        nodes = graph.add_nodes(count)
        graph.add_edges(start, end, weight_of, weight_of)
        gain = ratio * (1 + _MARGIN) - outward
        graph.add_grid_tedges(nodes, np.maximum(-gain, 0), np.maximum(gain, 0))
        graph.maxflow()
        part = ~graph.get_grid_segments(nodes)
        if not part.any():
            return ratio * (1 + _MARGIN)
        surface = outward[part].sum() - weight_of[part[start] != part[end]].sum()
        ratio = float(surface / np.count_nonzero(part))


def _settled(problem: BinaryProblem) -> NDArray[np.uint8]:
    """State of every voxel after the rules that need no neighbour's label: background, muscle or undecided."""
    # Subtracted before it is rounded: costs may be large where their difference is small.
    preference = np.subtract(problem.background_cost, problem.muscle_cost).astype(np.float32, copy=False)
    most = max(float(preference.max()), -float(preference.min()))
    state = np.full(problem.shape, _UNDECIDED, dtype=np.uint8)
    if problem.fixed is not None:
        for label, certain in ((BACKGROUND, -np.inf), (MUSCLE, np.inf)):
            given = problem.fixed == label
            preference[given] = certain
            state[given] = label
    # The bound of windows of several voxels supposes that the weights inside are no smaller than those of the surface.
    for window in _fitting(problem) if problem.guide is None else _WINDOWS[:1]:
        needed = problem.smoothness * _least_preference(problem.neighbourhood, window)
        if needed >= most:
            continue
        state[_opened(preference > needed, window)] = MUSCLE
        state[_opened(preference < -needed, window)] = BACKGROUND
        if np.count_nonzero(state == _UNDECIDED) <= _FEW * state.size:
            break
    return state


def _fitting(problem: BinaryProblem) -> list[_Window]:
    """List the windows that fit into a problem; they are flat where there is no room, or no neighbour, along z."""
    planes = problem.shape[0] if any(offset[0] for offset in problem.neighbourhood.offsets) else 0
    return [w if w.height <= planes else w._replace(half_height=0, flat=True) for w in _WINDOWS]


def _opened(mask: NDArray[np.bool_], window: _Window) -> NDArray[np.bool_]:
    """Union of the windows that lie in a mask."""
    return _grown(_shrunk(mask.view(np.uint8), window), window).astype(np.bool_)


def _shrunk(planes: NDArray[np.uint8], window: _Window) -> NDArray[np.uint8]:
    """Middles of the windows that lie in a mask and in the grid."""
    for _ in range(window.rounds):
        along = planes if window.flat else _along_z(planes, 1, cv2.MORPH_ERODE)
        planes = np.minimum(_in_planes(planes, _CROSS, cv2.MORPH_ERODE), along)
    square = np.ones((2 * window.half_width + 1,) * 2, dtype=np.uint8)
    return _along_z(_in_planes(planes, square, cv2.MORPH_ERODE), window.half_height, cv2.MORPH_ERODE)


def _grown(planes: NDArray[np.uint8], window: _Window) -> NDArray[np.uint8]:
    """Windows around their middles."""
    for _ in range(window.rounds):
        along = planes if window.flat else _along_z(planes, 1, cv2.MORPH_DILATE)
        planes = np.maximum(_in_planes(planes, _CROSS, cv2.MORPH_DILATE), along)
    square = np.ones((2 * window.half_width + 1,) * 2, dtype=np.uint8)
    return _along_z(_in_planes(planes, square, cv2.MORPH_DILATE), window.half_height, cv2.MORPH_DILATE)


def _in_planes(planes: NDArray[np.uint8], element: NDArray[np.uint8], operation: int) -> NDArray[np.uint8]:
    if element.size == 1:
        return planes
    # Beyond the grid there is nothing: OpenCV's own border would let windows reach out.
    return np.stack(
        [cv2.morphologyEx(plane, operation, element, borderType=cv2.BORDER_CONSTANT, borderValue=0) for plane in planes]
    )


def _along_z(planes: NDArray[np.uint8], half: int, operation: int) -> NDArray[np.uint8]:
    if half == 0:
        return planes
    column = np.ones((2 * half + 1, 1), dtype=np.uint8)
    return _in_planes(planes.reshape(1, len(planes), -1), column, operation).reshape(planes.shape)


class _Band:
    """The voxels in doubt: settled one by one as far as that goes, then cut.

    Voxels have flat indices into the grid padded by one voxel on each side, so that every voxel has all neighbours.
    """

    def __init__(self, problem: BinaryProblem, settled: NDArray[np.uint8]) -> None:
        self.problem = problem
        self.state = np.pad(settled, 1, constant_values=_NONE)
        # Views of one memory: labels are set by flat index and read as a volume.
        self.flat = self.state.reshape(-1)
        self.voxels: NDArray[np.intp] = np.flatnonzero(self.flat == _UNDECIDED)
        self.position = np.empty(self.flat.size, dtype=np.int32)
        self.position[self.voxels] = np.arange(len(self.voxels), dtype=np.int32)
        shape = self.state.shape
        z, y, x = (k - 1 for k in np.unravel_index(self.voxels, shape))
        here = np.ravel_multi_index((z, y, x), problem.shape)
        pairs = problem.neighbourhood
        self.steps = [int(np.dot(o, (shape[1] * shape[2], shape[2], 1))) for o in pairs.offsets]
        reach = 2 * problem.smoothness * sum(pairs.weights)
        # A preference that outweighs all neighbours need not be told from a larger one.
        bound = max(reach, float(np.finfo(np.float32).tiny))
        self.scale = min(_FINEST_SCALE, 2.0 ** math.floor(math.log2(_TOTAL_CAPACITY / (4 * bound * settled.size))))
        self.prices = [problem.smoothness * w * self.scale for w in pairs.weights]
        preference = problem.background_cost.reshape(-1)[here].astype(np.float64)
        preference -= problem.muscle_cost.reshape(-1)[here]
        self.preference = np.rint(np.clip(preference, -2 * bound, 2 * bound) * self.scale).astype(np.int64)
        self.guide = None
        if problem.guide is not None:
            self.guide = np.pad(problem.guide, 1).reshape(-1)

    def _weights(self, k: int, voxels: NDArray[np.intp], sign: int) -> NDArray[np.int64]:
        """Whole-number weights between voxels and their neighbours at an offset."""
        if self.guide is None:
            return np.full(len(voxels), round(self.prices[k]), dtype=np.int64)
        fading = _fading(self.problem, self.guide[voxels], self.guide[voxels + sign * self.steps[k]])
        return np.rint(self.prices[k] * fading).astype(np.int64)

    def settle(self) -> None:
        """Label voxels whose preference is at least the sum of the weights to undecided neighbours.

        Every voxel that is labelled sways its neighbours; it ends when a round gains too few to be worth another.
        """
        undecided = np.zeros(len(self.voxels), dtype=np.int64)
        for k, sign in itertools.product(range(len(self.steps)), (1, -1)):
            neighbour = self.flat[self.voxels + sign * self.steps[k]]
            weights = self._weights(k, self.voxels, sign)
            undecided += weights * (neighbour == _UNDECIDED)
            self.preference += weights * _SIDE[neighbour]
        candidates = np.arange(len(self.voxels))
        left = len(self.voxels)
        while len(candidates):
            muscle = candidates[self.preference[candidates] > undecided[candidates]]
            background = candidates[self.preference[candidates] <= -undecided[candidates]]
            self.flat[self.voxels[muscle]] = MUSCLE
            self.flat[self.voxels[background]] = BACKGROUND
            touched = []
            for k, sign in itertools.product(range(len(self.steps)), (1, -1)):
                for label, chosen in ((MUSCLE, muscle), (BACKGROUND, background)):
                    voxels = self.voxels[chosen]
                    neighbours = voxels + sign * self.steps[k]
                    open_ = self.flat[neighbours] == _UNDECIDED
                    at = self.position[neighbours[open_]]
                    weights = self._weights(k, voxels[open_], sign)
                    undecided[at] -= weights
                    self.preference[at] += weights * _SIDE[label]
                    touched.append(at)
            gained = len(muscle) + len(background)
            left -= gained
            if gained <= _FEW * left:
                break
            candidates = np.unique(np.concatenate(touched))

    def cut(self) -> None:
        """Label what is left by a minimum cut."""
        left = np.flatnonzero(self.flat[self.voxels] == _UNDECIDED)
        if not len(left):
            return
        voxels = self.voxels[left]
        self.position[voxels] = np.arange(len(left), dtype=np.int32)
        graph = maxflow.GraphInt(len(left), len(left) * len(self.steps))
        nodes = graph.add_nodes(len(left))
        for k, step in enumerate(self.steps):
            joined = self.flat[voxels + step] == _UNDECIDED
            start = voxels[joined]
            weights = self._weights(k, start, 1)
            graph.add_edges(nodes[joined], self.position[start + step].astype(nodes.dtype), weights, weights)
        # PyMaxflow gives voxels that neither terminal reaches to the source: muscle is the sink, so that they are not
        # muscle.
        preference = self.preference[left]
        graph.add_grid_tedges(nodes, np.maximum(-preference, 0), np.maximum(preference, 0))
        graph.maxflow()
        self.flat[voxels] = np.where(graph.get_grid_segments(nodes), MUSCLE, BACKGROUND)

    def muscle(self) -> NDArray[np.bool_]:
        """Mask of muscle."""
        mask: NDArray[np.bool_] = self.state[1:-1, 1:-1, 1:-1] == MUSCLE
        return mask
