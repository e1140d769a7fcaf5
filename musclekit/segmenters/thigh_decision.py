"""Which structure a pixel of a thigh is labelled: first what kind of tissue, then which of that kind.

The most probable of seventeen labels is a poor answer where muscles cannot be told apart: three that are likely at a
quarter each lose to "other compartment" at three tenths, and what is surely muscle is called none. So the kinds are
weighed against each other first, then the eleven together against other muscle, and then one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from musclekit.labels import label_set

__all__ = ["stepwise_scores"]

_CONTEXT = label_set("thigh-context")
_ELEVEN = tuple(label.id for label in label_set("thigh-11"))
_MUSCLE = (*_ELEVEN, *_CONTEXT.ids_of("other muscle"))
_BONE = (*_CONTEXT.ids_of("femur"), *_CONTEXT.ids_of("other bone"))
#: How much less each step of the decision counts than the one before it.
_LESS = np.float32(1 / 64)


def stepwise_scores(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return numbers of which the highest says what a pixel is.

    Parameters
    ----------
    probabilities : ndarray, shape (17, n, rows, columns)
        Of background and the labels of ``thigh-context``.

    Returns
    -------
    ndarray of float32, of the same shape
        That of a label is the probability of its kind, and in much smaller parts that of the eleven together, if it is
        one of them, and its own. They can be interpolated like probabilities.
    """
    scores = np.empty(probabilities.shape, dtype=np.float32)
    # Plane by plane: of a long scan the whole is large enough once.
    for z in range(probabilities.shape[1]):
        scores[:, z] = _plane_scores(probabilities[:, z].astype(np.float32))
    return scores


def _plane_scores(own: NDArray[np.float32]) -> NDArray[np.float32]:
    eleven = own[list(_ELEVEN)].sum(axis=0)
    kind, group = own.copy(), own.copy()
    kind[list(_MUSCLE)] = own[list(_MUSCLE)].sum(axis=0)
    kind[list(_BONE)] = own[list(_BONE)].sum(axis=0)
    group[list(_ELEVEN)] = eleven
    scores: NDArray[np.float32] = kind + _LESS * group + _LESS**2 * own
    return scores
