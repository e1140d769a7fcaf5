"""Earlier fakes, kept so that a discriminator does not forget them.

From Shrivastava et al., Learning from simulated and unsupervised images through adversarial training (2017), as used by
Zhu et al. (CycleGAN).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from musclekit.checks import check_number
from musclekit.errors import ParameterError

__all__ = ["ImagePool"]


class ImagePool:
    """A number of earlier fakes, shown in turn with new ones.

    Parameters
    ----------
    size : int
        Images it holds; with 0 every image passes through.
    seed : int
        Of its own chance, which nothing else draws from.

    Raises
    ------
    ParameterError
        If the size is negative.
    """

    def __init__(self, size: int = 50, *, seed: int) -> None:
        check_number("size", size, least=0, whole=True)
        self.size = size
        self._chance = torch.Generator().manual_seed(seed)
        self._images: list[torch.Tensor] = []

    def query(self, images: torch.Tensor) -> torch.Tensor:
        """Take new images in and give as many back, new or old.

        While there is room an image is kept and given back. Later it is given back with a probability of one half;
        otherwise it takes the place of one that was kept, and that one is given.

        Parameters
        ----------
        images : Tensor, shape (n, channels, rows, columns)
            New fakes, each decided on by itself.

        Returns
        -------
        Tensor, shape (n, channels, rows, columns)
            No gradient flows through it.
        """
        if self.size == 0:
            return images.detach()
        return torch.stack([self._exchanged(image) for image in images.detach()])

    def _exchanged(self, image: torch.Tensor) -> torch.Tensor:
        if len(self._images) < self.size:
            self._images.append(image.clone())
            return image
        if torch.rand((), generator=self._chance) < 0.5:
            return image
        place = int(torch.randint(self.size, (), generator=self._chance))
        old, self._images[place] = self._images[place], image.clone()
        # What was read from a file lies in main memory.
        return old.to(image.device)

    def state_dict(self) -> dict[str, Any]:
        """Return all it holds, as tensors and plain data; `load_state_dict` undoes it."""
        return {"size": self.size, "images": list(self._images), "chance": self._chance.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Bring it to where another pool was.

        Parameters
        ----------
        state : mapping
            What `state_dict` returned.

        Raises
        ------
        ParameterError
            If that pool had another size.
        """
        if state["size"] != self.size:
            raise ParameterError(
                f"the state is that of a pool of {state['size']} images, and this one holds {self.size}"
            )
        self._images = list(state["images"])
        self._chance.set_state(state["chance"])
