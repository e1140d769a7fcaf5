"""What a pixel of a thigh is labelled: kinds first, then labels."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from musclekit.labels import label_set
from musclekit.segmenters.thigh_decision import stepwise_scores

CONTEXT = label_set("thigh-context")
FEMUR, REST, FAT, OTHER, OTHER_BONE = (
    CONTEXT.ids_of(name)[0] for name in ("femur", "other compartment", "subcutaneous fat", "other muscle", "other bone")
)
ELEVEN = list(range(1, 12))


def pixel(**shares: float) -> NDArray[np.float32]:
    found = np.zeros((17, 1, 1, 1), dtype=np.float32)
    for label, share in shares.items():
        found[int(label[1:])] = share
    return found


def decided(probabilities: NDArray[np.float32]) -> int:
    return int(stepwise_scores(probabilities).argmax(axis=0)[0, 0, 0])


def test_muscles_that_are_unlikely_one_by_one_win_together() -> None:
    assert decided(pixel(_1=0.25, _2=0.2, _5=0.22, _13=0.33)) == 1
    assert decided(pixel(_1=0.15, _2=0.2, _15=0.3, _13=0.35)) == 2
    assert decided(pixel(_1=0.1, _2=0.1, _15=0.4, _13=0.4)) == OTHER
    assert decided(pixel(_12=0.3, _16=0.25, _13=0.45)) == FEMUR
    assert decided(pixel(_1=0.2, _2=0.2, _14=0.6)) == FAT
    assert decided(pixel(_0=0.6, _2=0.4)) == 0


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 3))
def test_it_is_what_is_decided_step_by_step(seed: int, spread: float) -> None:
    p = np.random.default_rng(seed).gamma(spread, size=17)
    p /= p.sum()
    kinds = {0: p[0], REST: p[REST], FAT: p[FAT], -1: p[[*ELEVEN, OTHER]].sum(), -2: p[[FEMUR, OTHER_BONE]].sum()}
    first, second = sorted(kinds.values(), reverse=True)[:2]
    eleven, other = p[ELEVEN].sum(), p[OTHER]
    if first - second < 0.05 or abs(eleven - other) < 0.05:
        return
    kind = max(kinds, key=lambda name: kinds[name])
    if kind == -1:
        wanted = ELEVEN[int(p[ELEVEN].argmax())] if eleven > other else OTHER
    elif kind == -2:
        wanted = FEMUR if p[FEMUR] >= p[OTHER_BONE] else OTHER_BONE
    else:
        wanted = kind
    found = stepwise_scores(p.astype(np.float32).reshape(17, 1, 1, 1))
    assert int(found.argmax(axis=0)[0, 0, 0]) == wanted


def test_half_precision_is_enough() -> None:
    p = np.random.default_rng(0).dirichlet(np.full(17, 0.3), (3, 8, 8)).transpose(3, 0, 1, 2)
    whole, half = (stepwise_scores(p.astype(kind)).argmax(axis=0) for kind in (np.float32, np.float16))
    assert (whole == half).mean() > 0.98
