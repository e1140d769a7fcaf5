"""Start-up: importing the package, and the command's help."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.timing import Row, seconds, table


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def rows() -> list[Row]:
    bare = seconds(lambda: run("-c", "pass"))
    imported = seconds(lambda: run("-c", "import musclekit"))
    helped = seconds(lambda: run("-m", "musclekit.cli", "--help"))
    return [
        Row("import musclekit", imported, 0.2, "bare Python", bare),
        Row("musclekit --help", helped, 0.5, "bare Python", bare),
    ]


if __name__ == "__main__":
    print(table(rows()))
