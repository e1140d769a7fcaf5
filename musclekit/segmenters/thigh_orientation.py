"""Whether a header says rightly where head, front and side of a thigh are: told from the muscles found in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from musclekit.segmenters.thigh_look import ThighLook, sureness_of
from musclekit.segmenters.thigh_trust import CONTEXT

if TYPE_CHECKING:
    from musclekit.segmenters.thigh_answer import ThighAnswer

__all__ = ["SURER", "header_doubts", "look_slices", "upside_down"]

#: Muscles with their bulk near the hip and near the knee. In the 35 label maps of whole thighs that we know, the former
#: lie higher by 0.2 to 0.45 of what of the thigh is seen.
NEAR_HIP = tuple(CONTEXT.ids_of(name)[0] for name in ("rectus femoris", "adductor magnus"))
NEAR_KNEE = tuple(CONTEXT.ids_of(name)[0] for name in ("vastus medialis", "biceps femoris short head"))
#: Where the former lie lower by more than this share of what is seen, the scan stands on its head.
LOWER = 0.1
#: In less than this nothing can be told: a tumour in a slab of 100 mm was enough to turn it over.
LEAST_SEEN_MM = 150.0
#: An image that is turned about is believed where the network is surer of it by this much. Of ten real scans as they
#: are, turned ones were less sure by 0.03 to 0.17.
SURER = 0.06
#: Said of a scan with front and back exchanged.
TURNED_OVER = (
    "front and back seem to be exchanged: the muscles are found with more certainty in the scan turned over; left and "
    "right may be wrong too"
)
#: Slices looked at once more.
LOOKED_AT = 5


def upside_down(areas_mm2: NDArray[np.float64], spacing_mm: float) -> bool:
    """Say whether the muscles of the hip lie below those of the knee.

    Parameters
    ----------
    areas_mm2 : ndarray of float64, shape (17, Z)
        Area of each label of ``thigh-context`` in each slice, counted from the feet as the header has it.
    spacing_mm : float
        Between slices.

    Returns
    -------
    bool
        False where too little is seen to tell.
    """
    seen = np.flatnonzero(areas_mm2[[*NEAR_HIP, *NEAR_KNEE]].any(axis=0))
    if not len(seen) or (seen[-1] - seen[0]) * spacing_mm < LEAST_SEEN_MM:
        return False
    heights = np.arange(areas_mm2.shape[1])
    middles = []
    for group in (NEAR_HIP, NEAR_KNEE):
        area = areas_mm2[list(group)].sum(axis=0)
        if not area.any():
            return False
        middles.append(float(np.average(heights, weights=area)))
    hip, knee = middles
    return bool(hip - knee < -LOWER * (seen[-1] - seen[0]))


def look_slices(accepted: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the first and the last of the slices in the middle of the thigh that are looked at once more."""
    at = np.flatnonzero(accepted)
    middle = int(at[len(at) // 2])
    return max(int(at[0]), middle - LOOKED_AT // 2), min(int(at[-1]), middle + LOOKED_AT // 2)


def header_doubts(look: ThighLook, answer: ThighAnswer) -> Iterator[str]:
    """Say where head, front and side of a scan seem to be others than its header, or its user, says.

    Parameters
    ----------
    look : ThighLook
        The scan, to be looked at once more.
    answer : ThighAnswer
        What was made of it as it is.

    Yields
    ------
    str
        For the reader of the labels; they stay as they are.
    """
    only = answer.sides[0] if len(answer.sides) == 1 else None
    other_side = f"the leg, taken for a {only} one, looks more like a {'left' if only == 'right' else 'right'} one"
    told = only is not None and answer.guess is None
    # Of a leg whose side was guessed, both ways are open once more.
    ways = (1,) if answer.guess is None else (1, -1)
    if not answer.accepted.any():
        if told and answer.would_be_accepted(look.answers(columns=-1)):
            yield other_side
        if any(answer.would_be_accepted(look.answers(rows=-1, columns=way)) for way in ways):
            yield TURNED_OVER
        return
    if answer.is_upside_down():
        yield (
            "the scan seems to stand on its head: muscles of the hip lie below those of the knee; left and right may "
            "be wrong too"
        )
    # The middle of the thigh, turned about.
    planes = answer.planes_in(*look_slices(answer.accepted))
    sure = sureness_of(found[:, here] for (_, found), here in zip(answer.answers, planes, strict=True))
    if max(look.sureness(planes, rows=-1, columns=way) for way in ways) > sure + SURER:
        yield TURNED_OVER
    if told and look.sureness(planes, columns=-1) > sure + SURER:
        yield other_side
