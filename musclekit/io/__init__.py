"""The only code that knows file formats.

SimpleITK, nibabel and pydicom are loaded by the first call that needs them.
"""

from musclekit.io.atomic import replacing
from musclekit.io.formats import stem
from musclekit.io.label_table import write_label_table
from musclekit.io.volumes import (
    Scan,
    guess_contrast,
    open_scan,
    read,
    read_labels,
    write_image,
    write_labels,
)

__all__ = [
    "Scan",
    "guess_contrast",
    "open_scan",
    "read",
    "read_labels",
    "replacing",
    "stem",
    "write_image",
    "write_label_table",
    "write_labels",
]
