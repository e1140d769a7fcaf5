"""Everything that needs torch, and the only place that imports it."""

from musclekit.neural.device import Device, devices, resolve_device

__all__ = ["Device", "devices", "resolve_device"]
