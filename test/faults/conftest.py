"""The tiny recipe, once for all tests of this folder."""

import pytest

from faults.campaign import Campaign


@pytest.fixture(scope="session")
def experiments():
    """Those of `Campaign.tiny`."""
    return {}


@pytest.fixture
def campaign(experiments, tmp_path_factory):
    """campaign(**options): a small one."""
    directory = tmp_path_factory.getbasetemp() / "faults"
    return lambda **options: Campaign(directory, small=True, experiments=experiments, **options)
