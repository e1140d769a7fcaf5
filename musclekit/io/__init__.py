"""The only code that knows file formats."""

from musclekit.io.atomic import replacing

__all__ = ["replacing"]
