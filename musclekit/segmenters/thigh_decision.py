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
    own = probabilities.astype(np.float32)
    scores = own * _LESS**2
    kind, eleven = np.zeros_like(own[0]), np.zeros_like(own[0])
    for n in _ELEVEN:
        eleven += own[n]
    for n in _MUSCLE:
        kind += own[n]
    for n, channel in enumerate(own):
        if n in _MUSCLE:
            scores[n] += kind + _LESS * (eleven if n in _ELEVEN else channel)
        elif n in _BONE:
            scores[n] += sum(own[other] for other in _BONE) + _LESS * channel
        else:
            scores[n] += channel * (1 + _LESS)
    return scores
