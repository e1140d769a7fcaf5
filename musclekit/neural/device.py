"""Which devices torch can really use on this machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Device", "devices"]


@dataclass(frozen=True)
class Device:
    """One device.

    Parameters
    ----------
    name : str
        What torch calls it: ``"cpu"``, ``"cuda:0"``, ``"mps"``.
    description : str
        The maker's name of it, or the number of threads of a processor.
    """

    name: str
    description: str


def devices() -> tuple[Device, ...]:
    """Return the devices torch can use, the processor first."""
    found = [Device("cpu", f"{torch.get_num_threads()} threads")]
    found += [Device(f"cuda:{i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append(Device("mps", "Apple Metal"))
    return tuple(found)
