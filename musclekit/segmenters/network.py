"""Segmenters that were trained: one class, whatever network the checkpoint holds, and ensembles of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from musclekit.checks import check_cases, check_contrast, check_number
from musclekit.errors import CheckpointError, ParameterError
from musclekit.image import Case, Contrast, Image, LabelMap, Prediction, ProbabilityMap
from musclekit.labels import LabelSet, Side
from musclekit.uncertainty import ClassReduction
from musclekit.weights import checkpoint_path, named_checkpoint

if TYPE_CHECKING:
    from musclekit.neural.cards import SegmenterCard
    from musclekit.neural.device import Precision
    from musclekit.neural.segmentation import Segmented

__all__ = ["EnsembleSegmenter", "NetworkSegmenter", "load_network", "people_of"]

Runtime = Literal["torch", "onnx"]


class _Trained(BaseEstimator):
    """What a trained segmenter and an ensemble of them have in common."""

    @abstractmethod
    def _loaded(self, *, on_device: bool = False) -> tuple[Sequence[Any], SegmenterCard]:
        """Return the networks and the card that they share."""

    @abstractmethod
    def _segmented(self, image: Image, *, many: bool) -> Segmented:
        """Segment, several times over if many answers are asked for."""

    @property
    def card(self) -> SegmenterCard:
        """What the checkpoint says of itself.

        Raises
        ------
        ParameterError
            If no checkpoint was named.
        MissingFileError, FormatError, CheckpointError
            If it cannot be used, or holds another network than was asked for.
        """
        return self._loaded()[1]

    @property
    def label_set(self) -> LabelSet:
        """What the network was trained to give."""
        return self.card.label_set

    @property
    def contrasts(self) -> frozenset[Contrast]:
        """The contrasts that the network was trained to take."""
        return self.card.contrasts

    def fit(self, cases: Sequence[Case]) -> Self:
        """Check that the cases can be segmented. Nothing is learnt: the network was trained before.

        Raises
        ------
        ModalityError
            If the contrast of an image is not among those that the network takes.
        """
        check_cases(cases, self.contrasts, self.card.name)
        return self

    def segment(self, image: Image) -> LabelMap:
        """Segment a scan.

        Raises
        ------
        ParameterError
            If no checkpoint was named, a parameter is out of range, the device is not there, or memory is too small.
        ModalityError
            If the image is of no contrast that the network takes.
        VoxelError
            If it is constant or all air.
        SegmentationError
            If there is no body in it.
        """
        return self._labels(self._segmented(image, many=False), image)

    def probabilities(self, image: Image) -> ProbabilityMap:
        """Return the probability of each label; errors are those of `segment`."""
        return self._probabilities(self._segmented(image, many=False), image)

    def predict(self, image: Image) -> Prediction:
        """Segment a scan many times over, and say how far the answers differ; errors are those of `segment`.

        Returns
        -------
        Prediction
            Labels and probabilities are the mean's; volumes and areas those of each sample, before the largest piece
            of each structure is chosen.
        """
        found = self._segmented(image, many=True)
        assert found.variance is not None
        return Prediction(
            self._labels(found, image),
            lambda: self._probabilities(found, image),
            found.variance,
            found.entropy(),
            self._by_name(found.volume_mm3, found.sides, 1e-3),
            self._by_name(found.area_mm2, found.sides, 1.0),
        )

    def _by_name(
        self, samples: NDArray[np.float64] | None, sides: Sequence[str | None], unit: float
    ) -> dict[str, NDArray[np.float64]]:
        assert samples is not None
        return {
            f"{label.full_name} {side}" if side else label.full_name: of_leg[:, n] * unit
            for side, of_leg in zip(sides, samples, strict=True)
            for n, label in enumerate(self.label_set, start=1)
        }

    def _labels(self, found: Segmented, image: Image) -> LabelMap:
        ids = np.array([0, *(label.id for label in self.label_set)], dtype=np.uint16)
        return LabelMap(ids[found.classes], image.grid, self.label_set)

    def _probabilities(self, found: Segmented, image: Image) -> ProbabilityMap:
        return ProbabilityMap(np.clip(found.probabilities(), 0, 1), image.grid, self.label_set)


class NetworkSegmenter(_Trained):
    """Segment scans by a trained network.

    Registered under the names of the networks (``bayesian-unet``, ``unet-2.5d``, ...): each takes checkpoints of its
    own network and no others.

    Parameters
    ----------
    checkpoint : str or Path
        File written by training, or the name of weights that ship (`musclekit.weights.shipped`).
    network : str, optional
        Which network the checkpoint has to hold; any if left out.
    device : str
        Where it runs: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. One that is not there is an error.
    batch : int
        Slices that go through it at once. On a processor 8 of 256 x 256 pixels take twice as long as 4 times 2; a GPU
        takes many.
    precision : {"float32", "bfloat16"}
        Of the work. bfloat16 is faster where the processor has the instructions for it (docs/benchmarks.md).
    runtime : {"torch", "onnx"}
        What does the work. ONNX Runtime, an extra (``pip install 'musclekit[onnx]'``), is faster on processors
        (docs/benchmarks.md); it takes float32, and no samples.
    samples : int
        How often a network with dropout is sampled; 0 for one answer without dropout. With samples, `segment` gives
        the labels of their mean. `predict` takes 20 where this is 0.
    reduction : {"sum", "mean"}
        Whether the variances of the classes are summed, as in Hiasa et al., or averaged, as in their code.
    random_state : int
        Of what is dropped. The grey values are taken into it, so that each scan has samples of its own.
    side : {"left", "right"}, optional
        Which leg, for scans that show one: left legs are mirrored for a network that learnt from single legs.
    slices : (int, int), optional
        First and last slice to look at, counted from the feet, where a scan shows more than the network knows: hip and
        knee of a network of the thigh. All if left out.
    largest : bool
        Whether of each structure of each leg only the largest connected piece is kept.

    See Also
    --------
    musclekit.neural.segmentation.segment_volume : the work.
    musclekit.uncertainty : what can be said of the variance.
    """

    def __init__(
        self,
        *,
        checkpoint: str | Path | None = None,
        network: str | None = None,
        device: str = "cpu",
        batch: int = 2,
        precision: Precision = "float32",
        runtime: Runtime = "torch",
        samples: int = 0,
        reduction: ClassReduction = "sum",
        random_state: int = 0,
        side: Side | None = None,
        slices: tuple[int, int] | None = None,
        largest: bool = True,
    ) -> None:
        self.checkpoint = checkpoint
        self.network = network
        self.device = device
        self.batch = batch
        self.precision = precision
        self.runtime = runtime
        self.samples = samples
        self.reduction = reduction
        self.random_state = random_state
        self.side = side
        self.slices = slices
        self.largest = largest

    #: Samples of `predict` where none are asked for.
    PREDICTED = 20

    @property
    def is_uncertain(self) -> bool:
        """Whether, as it is set, it answers several times."""
        return self.samples > 0

    @property
    def n_samples(self) -> int:
        """How often it answers in `predict`."""
        return self.samples or self.PREDICTED

    @property
    def training_subjects_(self) -> tuple[str, ...]:
        """The people it learnt from, and by whom its best epoch was chosen: an evaluation scores none of them."""
        return people_of([self.card])

    def _segmented(self, image: Image, *, many: bool) -> Segmented:
        from musclekit.neural.segmentation import Samples, segment_volume

        check_number("samples", self.samples, least=0, whole=True)
        check_number("batch", self.batch, least=1, whole=True)
        check_number("random_state", self.random_state, least=0, whole=True)
        n = self.n_samples if many else self.samples
        self._check_runtime(n)
        (network,), card = self._loaded(on_device=True)
        check_contrast(image, card.contrasts, self.network or card.name)
        return segment_volume(
            network,
            card,
            image,
            device=self.device,
            batch=self.batch,
            precision=self.precision,
            samples=Samples(n, self.random_state, self.reduction) if n else None,
            side=self.side,
            slices=_two(self.slices),
            largest=self.largest,
        )

    def _check_runtime(self, samples: int) -> None:
        if self.runtime not in get_args(Runtime):
            raise ParameterError(f"runtime is one of {', '.join(get_args(Runtime))}, not '{self.runtime}'")
        if self.runtime == "torch":
            return
        if samples:
            raise ParameterError("runtime 'onnx' holds no dropout to sample; runtime 'torch' does")
        for name, given, taken in (("device", self.device, "cpu"), ("precision", self.precision, "float32")):
            if given != taken:
                raise ParameterError(f"with runtime 'onnx' {name} is {taken}, not {given}; runtime 'torch' does that")

    def _loaded(self, *, on_device: bool = False) -> tuple[Sequence[Any], SegmenterCard]:
        device, runtime = (self.device, self.runtime) if on_device else ("cpu", "torch")
        network, card = load_network(self.checkpoint, self.network, device=device, runtime=runtime)
        return (network,), card


class EnsembleSegmenter(_Trained):
    """Segment scans by the mean of several networks that were trained alike: a deep ensemble.

    The comparator of Monte Carlo dropout: their answers are its samples.

    Parameters
    ----------
    checkpoints : sequence of str or Path
        Files written by training; two at least. Networks, labels, windows and views have to be the same.
    device, batch, precision, side, slices, largest
        As in `NetworkSegmenter`.

    References
    ----------
    Lakshminarayanan et al., Simple and scalable predictive uncertainty estimation using deep ensembles (2017).
    """

    def __init__(
        self,
        *,
        checkpoints: Sequence[str | Path] = (),
        device: str = "cpu",
        batch: int = 2,
        precision: Precision = "float32",
        side: Side | None = None,
        slices: tuple[int, int] | None = None,
        largest: bool = True,
    ) -> None:
        self.checkpoints = checkpoints
        self.device = device
        self.batch = batch
        self.precision = precision
        self.side = side
        self.slices = slices
        self.largest = largest

    #: Its networks always answer one by one.
    is_uncertain = True
    reduction: ClassReduction = "sum"

    @property
    def n_samples(self) -> int:
        """How often it answers: once a network."""
        return len(self.checkpoints)

    @property
    def training_subjects_(self) -> tuple[str, ...]:
        """The people any of them learnt from, or was chosen by: an evaluation scores none of them."""
        return people_of([_member(path, "cpu")[1] for path in self.checkpoints])

    def _segmented(self, image: Image, *, many: bool) -> Segmented:
        from musclekit.neural.segmentation import segment_volume

        check_number("batch", self.batch, least=1, whole=True)
        members, card = self._loaded(on_device=True)
        check_contrast(image, card.contrasts, card.name)
        return segment_volume(
            members,
            card,
            image,
            device=self.device,
            batch=self.batch,
            precision=self.precision,
            side=self.side,
            slices=_two(self.slices),
            largest=self.largest,
        )

    def _loaded(self, *, on_device: bool = False) -> tuple[Sequence[Any], SegmenterCard]:
        if isinstance(self.checkpoints, str | Path) or len(self.checkpoints) < 2:
            raise ParameterError("an ensemble needs the checkpoints of two networks at least")
        read = [_member(path, self.device if on_device else "cpu") for path in self.checkpoints]
        first = read[0][1].recipe
        for path, (_, card) in zip(self.checkpoints[1:], read[1:], strict=True):
            differing = [name for name, value in card.recipe.items() if value != first[name]]
            if differing:
                raise CheckpointError(
                    f"{checkpoint_path(path)}: differs from {checkpoint_path(self.checkpoints[0])} in "
                    f"{', '.join(differing)}: the networks of an ensemble are trained alike"
                )
        return [network for network, _ in read], read[0][1]


def _two(slices: object) -> tuple[int, int] | None:
    match slices:
        case None:
            return None
        case [int(first), int(last)]:
            return first, last
        case _:
            raise ParameterError(f"slices are the first and the last one, as [10, 40], not {slices!r}")


def people_of(cards: Sequence[SegmenterCard]) -> tuple[str, ...]:
    """Return the people whom networks learnt from, and by whom their best epochs were chosen."""
    return tuple(sorted({name for card in cards for name in (*card.training_subjects, *card.validation_subjects)}))


def _member(checkpoint: str | Path, device: str) -> tuple[Any, SegmenterCard]:
    path, state = named_checkpoint(checkpoint, None)
    return _load(path, state, device, "torch")


def load_network(
    checkpoint: str | Path | None, network: str | None = None, *, device: str = "cpu", runtime: Runtime = "torch"
) -> tuple[Any, SegmenterCard]:
    """Read a checkpoint, or remember it.

    Parameters
    ----------
    checkpoint : str or Path, optional
        As of `NetworkSegmenter`; without one the error names the weights that ship.
    network : str, optional
        Which network it has to hold.
    device, runtime
        As of `NetworkSegmenter`.

    Returns
    -------
    Module
        On the device.
    SegmenterCard
        What it says of itself.

    Raises
    ------
    ParameterError
        If no checkpoint was named, or the device is not there.
    MissingFileError, FormatError, CheckpointError
        If it cannot be used, or holds another network.
    """
    path, state = named_checkpoint(checkpoint, network)
    found, card = _load(path, state, device, runtime)
    if network not in (None, card.network["name"]):
        raise CheckpointError(f"{path}: a checkpoint of '{card.network['name']}', not of '{network}'")
    return found, card


@lru_cache(maxsize=8)
def _load(path: Path, state: tuple[int, ...], device: str, runtime: Runtime) -> tuple[Any, SegmenterCard]:
    """Read a checkpoint; the state of the file stands for its content."""
    from musclekit.neural import resolve_device
    from musclekit.neural.cards import SegmenterCard
    from musclekit.neural.checkpoint import load_checkpoint
    from musclekit.neural.onnx import OnnxNetwork

    where = resolve_device(device)
    network, card = load_checkpoint(path, SegmenterCard)
    return OnnxNetwork(network) if runtime == "onnx" else network.to(where), card
