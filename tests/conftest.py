"""What all tests share: one thread, as in production, and the folder of real data."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("belated", deadline=None, derandomize=True)
settings.load_profile("belated")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real logs, named by BELATED_DATA."""
    folder = os.environ.get("BELATED_DATA")
    if not folder:
        pytest.skip("needs real logs: set BELATED_DATA to their folder (see CONTRIBUTING.md)")
    return Path(folder)
