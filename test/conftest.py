"""Fixtures for all tests; packages that tests import (`cluster`, `devices`, `faults`, `imitations`, `programs`)."""

import getpass
import importlib.util
import os
import re
import shutil
import signal
import sys
import tempfile
import time
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
_importable(Path(__file__).parent / "devices")
_importable(Path(__file__).parent / "imitations")
_importable(Path(__file__).parent / "programs")
_importable(Path(__file__).parent / "faults")


# Generated cases are the same in every run; `--hypothesis-profile campaign` looks for others, and for longer.
settings.register_profile("run", derandomize=True, deadline=None)
settings.register_profile("campaign", max_examples=5000, deadline=None)
settings.load_profile("run")


# What a machine or a shell needs, and what somebody says to the tests. All other variables are somebody's own.
KEPT = re.compile(
    r"PATH|USER|LOGNAME|TERM|TMPDIR|VIRTUAL_ENV|\w+_NUM_THREADS|(LD|CUDA|NVIDIA|OMP|PYTEST|COV|COVERAGE|SPEECHLVM)_\w+"
)
HOME = tempfile.mkdtemp(prefix="home.")


def _same_everywhere() -> None:
    """Give tests, and the programs that they start, the same surroundings whoever runs them from wherever.

    In the background, under nohup and in many CI systems signals are ignored, which programs inherit. With a handler,
    these tests still ignore them, and the programs do not.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    for name in [name for name in os.environ if not KEPT.fullmatch(name)]:
        del os.environ[name]
    os.environ |= {"HOME": HOME, "LC_ALL": "C", "TZ": "UTC", "PYTHONNOUSERSITE": "1"}
    time.tzset()
    try:
        getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name, for which torch asks
        os.environ["LOGNAME"] = str(os.getuid())


_same_everywhere()


def pytest_unconfigure() -> None:
    """Remove what programs have written for their user."""
    shutil.rmtree(HOME, ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """--recipes: the tests marked so, too."""
    parser.addoption("--recipes", action="store_true", help="also run every recipe on an imitation of its corpus")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --recipes, say why whole recipes are not run; likewise without a GPU."""
    if not config.getoption("--recipes"):
        for item in items:
            if item.get_closest_marker("recipe"):
                item.add_marker(pytest.mark.skip(reason="a whole recipe, or as long, about a minute: give --recipes"))
    if of_gpu := [item for item in items if item.get_closest_marker("gpu")]:
        import torch

        if not torch.cuda.is_available():
            for item in of_gpu:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def timit_sample() -> Path:
    """A corpus in TIMIT's layout: $SPEECHLVM_TIMIT, or shared/corpora/timit beside the repository."""
    given = os.environ.get("SPEECHLVM_TIMIT")
    path = Path(given) if given else ROOT.parent / "shared/corpora/timit"
    if not path.is_dir():
        pytest.skip(f"no TIMIT sample at {path}; set SPEECHLVM_TIMIT to the directory that holds TRAIN and TEST")
    return path
