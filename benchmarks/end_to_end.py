"""The whole command on CT and MR: read, segment, measure, draw, report; time and peak memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import Row, ct, once, table
from musclekit.image import Contrast, Image
from musclekit.io import write_image
from musclekit.phantom import make_thigh, render

# The process tells its own peak: what the system tells of children holds the parent's memory at the fork.
PROGRAM = """
import sys
from musclekit.cli import main
try:
    main()
finally:
    with open("/proc/self/status") as status:
        print(next(line.split()[1] for line in status if line.startswith("VmHWM")), file=sys.stderr)
"""


def mr() -> Image:
    """A T1-weighted scan of both thighs, 320x320, 31 slices of 7 mm."""
    phantom = make_thigh(6, shape=(31, 320, 320), spacing=(7.0, 1.3, 1.3), supersampling=(1, 1, 1))
    return render(phantom, Contrast.T1W)


def whole_command(what: str, image: Image, method: str, at_most_s: float | None) -> Row:
    """Time `musclekit segment` on an image."""
    peak_kb = []
    with tempfile.TemporaryDirectory() as name:
        scan = Path(name) / "thigh.nii.gz"
        write_image(image, scan)
        command = [sys.executable, "-c", PROGRAM, "segment", str(scan), "-o", f"{name}/out"]
        command += ["--method", method, "--modality", str(image.contrast), "--jobs", "2", "--quiet"]

        def run() -> None:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peak_kb.append(int(done.stderr.splitlines()[-1]))

        taken = once(run)
    return Row(f"segment {what}, {method}", taken, at_most_s, "", None, f"peak memory {peak_kb[0] / 1e6:.2f} GB")


def rows() -> list[Row]:
    return [
        whole_command("CT 512x512x60", ct(60)[0], "tissue", 15.0),
        whole_command("MR 320x320x31", mr(), "thigh", 30.0),
        # A whole thigh in slices of 1.5 mm.
        whole_command("CT 512x512x300", ct(300)[0], "thigh", None),
    ]


if __name__ == "__main__":
    print(table(rows()))
