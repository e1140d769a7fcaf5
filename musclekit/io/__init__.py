"""The only code that knows file formats.

SimpleITK, nibabel and pydicom are loaded by the first call that needs them.
"""

from musclekit.io.atomic import replacing
from musclekit.io.dicom import Series, holds_images, list_series
from musclekit.io.formats import stem
from musclekit.io.label_table import read_label_table, write_label_table
from musclekit.io.manifest import ManifestRow, files_of, group_rows, load_case, read_manifest, write_manifest
from musclekit.io.toml import read_toml
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
    "ManifestRow",
    "Scan",
    "Series",
    "files_of",
    "group_rows",
    "guess_contrast",
    "holds_images",
    "list_series",
    "load_case",
    "open_scan",
    "read",
    "read_label_table",
    "read_labels",
    "read_manifest",
    "read_toml",
    "replacing",
    "stem",
    "write_image",
    "write_label_table",
    "write_labels",
    "write_manifest",
]
