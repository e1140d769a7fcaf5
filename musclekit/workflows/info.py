"""What is installed and what it can run on."""

from __future__ import annotations

import os
import platform
from typing import Any

from musclekit import registry
from musclekit.neural import devices
from musclekit.weights import shipped
from musclekit.workflows.record import versions

__all__ = ["collect_info"]


def collect_info() -> dict[str, dict[str, Any]]:
    """Return versions, devices, processors and the number of methods of each kind, as plain data."""
    return {
        "versions": versions(),
        "devices": {device.name: device.description for device in devices()},
        "machine": {
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "processors": os.cpu_count() or 1,
        },
        "methods": {
            "segmenters": len(registry.names("segmenter")),
            "translators": len(registry.names("translator")),
            "refiners": len(registry.names("refiner")),
            "weights": ", ".join(shipped()) or "none ship",
        },
    }
