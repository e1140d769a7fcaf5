"""The whole command on one CT 512x512x60: read, segment, measure, draw, report; time and peak memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import Row, ct, once, table
from musclekit.io import write_image


def rows() -> list[Row]:
    image, _ = ct(60)
    with tempfile.TemporaryDirectory() as name:
        scan = Path(name) / "thigh.nii.gz"
        write_image(image, scan)
        command = [sys.executable, "-m", "musclekit.cli", "segment", str(scan), "-o", f"{name}/out", "--jobs", "2"]
        taken = once(lambda: subprocess.run([*command, "--quiet"], check=True, capture_output=True))
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    return [Row("segment CT 512x512x60", taken, 15.0, "", None, f"largest process {peak_gb:.2f} GB")]


if __name__ == "__main__":
    print(table(rows()))
