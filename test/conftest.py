"""Fixtures for all tests; packages that tests import: `cluster`, `faults`, `imitations`, `programs` run in process."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]


def _importable(package: Path) -> None:
    """Make a directory beside this file importable; on the path, `test/speechlvm` would hide the package itself."""
    specification = importlib.util.spec_from_file_location(package.name, package / "__init__.py")
    sys.modules[package.name] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(sys.modules[package.name])


_importable(Path(__file__).parent / "cluster")
_importable(Path(__file__).parent / "imitations")
_importable(Path(__file__).parent / "programs")
_importable(Path(__file__).parent / "faults")


# Generated cases are the same in every run; `--hypothesis-profile campaign` looks for others, and for longer.
settings.register_profile("run", derandomize=True, deadline=None)
settings.register_profile("campaign", max_examples=5000, deadline=None)
settings.load_profile("run")


def pytest_addoption(parser: pytest.Parser) -> None:
    """--recipes: the tests marked so, too."""
    parser.addoption("--recipes", action="store_true", help="also run every recipe on an imitation of its corpus")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --recipes, say why whole recipes are not run."""
    if not config.getoption("--recipes"):
        for item in items:
            if item.get_closest_marker("recipe"):
                item.add_marker(pytest.mark.skip(reason="a whole recipe, or as long, about a minute: give --recipes"))


@pytest.fixture(scope="session")
def timit_sample() -> Path:
    """A corpus in TIMIT's layout: $SPEECHLVM_TIMIT, or shared/corpora/timit beside the repository."""
    given = os.environ.get("SPEECHLVM_TIMIT")
    path = Path(given) if given else ROOT.parent / "shared/corpora/timit"
    if not path.is_dir():
        pytest.skip(f"no TIMIT sample at {path}; set SPEECHLVM_TIMIT to the directory that holds TRAIN and TEST")
    return path
