"""Fixtures shared by every test."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

# Tests that were started in the background ignore Ctrl-C, and so would what they start to interrupt it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans beside the checkout; tests that need it skip, and say so, where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real scans are not here (../shared/data)")
    return SHARED_DATA
