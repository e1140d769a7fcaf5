"""Plain data as TOML, as far as plans need it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml_of(data: Mapping[str, Any]) -> str:
    """Write a plan: a line for each value, with inline tables."""
    return "".join(f"{name} = {_value(value)}\n" for name, value in data.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_value(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    # Of text, numbers and truth JSON and TOML say the same.
    return json.dumps(value)
