"""Every benchmark beside its peer: ``python -m benchmarks.run``. Same input, same run; quote ratios, not seconds."""

from __future__ import annotations

import argparse
import platform
from importlib import import_module

from rich.console import Console

from benchmarks.timing import Row, table

MODULES = (
    "startup", "mixture", "components", "distances", "measures", "level_set", "graph_cut", "grid_search", "translators",
    "export_step", "networks", "end_to_end",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=list(MODULES), help=f"any of {', '.join(MODULES)}")
    chosen = parser.parse_args().modules
    rows: list[Row] = []
    messages = Console(stderr=True)
    for name in chosen:
        with messages.status(f"{name} ..."):
            rows += import_module(f"benchmarks.{name}").rows()
    print(table(rows))
    print(f"\n{platform.machine()}, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
