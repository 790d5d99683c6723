"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def timit_sample() -> Path:
    """A corpus in TIMIT's layout: $SPEECHLVM_TIMIT, or shared/corpora/timit beside the repository."""
    given = os.environ.get("SPEECHLVM_TIMIT")
    path = Path(given) if given else ROOT.parent / "shared/corpora/timit"
    if not path.is_dir():
        pytest.skip(f"no TIMIT sample at {path}; set SPEECHLVM_TIMIT to the directory that holds TRAIN and TEST")
    return path
