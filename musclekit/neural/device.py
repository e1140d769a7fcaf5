"""Which devices torch can really use on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from musclekit.errors import ParameterError

__all__ = ["Device", "Precision", "devices", "resolve_device", "told_of_memory"]

#: Of the work of a network; its weights are float32 in any case.
Precision = Literal["float32", "bfloat16"]


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


def resolve_device(name: str) -> torch.device:
    """Return the device of that name, and never another one in its place.

    Parameters
    ----------
    name : str
        ``"cpu"``, ``"cuda"`` (the first one), ``"cuda:1"``, ``"mps"``.

    Raises
    ------
    ParameterError
        If there is none; the message says what there is.
    """
    known = devices()
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in [device.name for device in known]:
        there = ", ".join(f"{device.name} ({device.description})" for device in known)
        raise ParameterError(f"device '{name}' is not here; there is: {there}")
    return torch.device(wanted)


@contextmanager
def told_of_memory(device: torch.device | str, advice: str) -> Iterator[None]:
    """Say what helps where a device has too little memory.

    Parameters
    ----------
    device : torch.device or str
        Where work is done.
    advice : str
        What to do about it.

    Raises
    ------
    ParameterError
        In place of torch's own error, which tells of bytes.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as problem:
        # On the processor torch raises an error of every day, and tells of memory in its text alone.
        if not isinstance(problem, torch.OutOfMemoryError | MemoryError) and "DefaultCPUAllocator" not in str(problem):
            raise
        raise ParameterError(f"device '{device}' has too little memory: {advice}") from problem
