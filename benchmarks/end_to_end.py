"""The whole command on one CT 512x512x60: read, segment, measure, draw, report; time and peak memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import Row, ct, once, table
from musclekit.io import write_image

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


def rows() -> list[Row]:
    image, _ = ct(60)
    peak_kb = []
    with tempfile.TemporaryDirectory() as name:
        scan = Path(name) / "thigh.nii.gz"
        write_image(image, scan)
        command = [sys.executable, "-c", PROGRAM, "segment", str(scan), "-o", f"{name}/out"]
        command += ["--method", "tissue", "--jobs", "2", "--quiet"]

        def run() -> None:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peak_kb.append(int(done.stderr.splitlines()[-1]))

        taken = once(run)
    return [Row("segment CT 512x512x60", taken, 15.0, "", None, f"peak memory {peak_kb[0] / 1e6:.2f} GB")]


if __name__ == "__main__":
    print(table(rows()))
