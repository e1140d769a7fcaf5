"""Which channel is the highest at each voxel, where channels come first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["highest_channel"]


def highest_channel(channels: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return the number of the highest channel of each voxel, the first of equals.

    Parameters
    ----------
    channels : ndarray of shape (C, ...)
        1 to 256 channels of finite numbers.

    Returns
    -------
    ndarray of uint8, shape (...)
        As ``channels.argmax(axis=0)``, which walks through memory voxel by voxel and takes some twenty times as long.
    """
    best = np.array(channels[0])
    highest = np.zeros(best.shape, dtype=np.uint8)
    is_higher = np.empty(best.shape, dtype=bool)
    number = np.empty_like(highest)
    for n, channel in enumerate(channels[1:], start=1):
        np.greater(channel, best, out=is_higher)
        # Numbers only grow: a maximum puts the new one where the channel is higher.
        np.multiply(is_higher, np.uint8(n), out=number, dtype=np.uint8)
        np.maximum(highest, number, out=highest)
        np.maximum(best, channel, out=best)
    return highest
