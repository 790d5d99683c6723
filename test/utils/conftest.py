"""Schedulers that are started once for all tests of job runners."""

import pytest
from cluster import Slurm, missing


@pytest.fixture(scope="session")
def slurm():
    """A Slurm of two nodes, both this host."""
    if reason := missing(*Slurm.needs):
        pytest.skip(reason)
    with Slurm.running() as running:
        yield running
