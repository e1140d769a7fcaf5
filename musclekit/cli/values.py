"""From ``key=value`` on the command line to typed parameters."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from musclekit.errors import ParameterError

__all__ = ["parse_settings"]


def _parse_value(text: str) -> Any:
    """Return a TOML value (number, true/false, quoted text, list); what is none of these is text as it stands."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return the parameters given as ``key=value``.

    Parameters
    ----------
    settings : sequence of str
        As ``["smoothness=0.1", "per=slice", "n_iterations=[20, 10]"]``.

    Raises
    ------
    ParameterError
        If one has no ``=`` or no key, or a key is set twice.
    """
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ParameterError(f"--set takes key=value, not '{setting}'")
        if key in parsed:
            raise ParameterError(f"--set gives '{key}' twice")
        parsed[key] = _parse_value(value.strip())
    return parsed
