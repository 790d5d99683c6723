"""Job runners with their schedulers, and a recipe of shell only."""

from contextlib import ExitStack

import pytest
from cluster import Bench
from cluster.fake import Fake
from cluster.real import GridEngine, Slurm
from programs.recipe import Tree


@pytest.fixture(scope="session")
def real():
    """real(class): Slurm or Grid Engine, started once for all tests."""
    with ExitStack() as stack:
        running = {}

        def get(kind):
            if reason := kind.missing():
                pytest.skip(reason)
            if kind not in running:
                running[kind] = stack.enter_context(kind.running())
            return running[kind]

        yield get


@pytest.fixture
def bench(request, real, tmp_path):
    """A runner in a directory of its own: local, Slurm and Grid Engine with real schedulers, PBS with a fake one."""
    kind = request.param
    if kind == "local":
        return Bench(kind, tmp_path)
    fake = tmp_path.with_name(f"{tmp_path.name}.scheduler")
    scheduler = Fake(kind, fake).install() if kind == "pbs" else real({"slurm": Slurm, "sge": GridEngine}[kind])
    return Bench(kind, tmp_path, scheduler)


@pytest.fixture
def slurm(real, tmp_path):
    """The runner of Slurm."""
    return Bench("slurm", tmp_path, real(Slurm))


@pytest.fixture
def sge(real, tmp_path):
    """The runner of Grid Engine."""
    return Bench("sge", tmp_path, real(GridEngine))


@pytest.fixture
def fake(request, tmp_path):
    """A runner of a cluster with a scheduler that can be told to make trouble."""
    kind = request.param
    return Bench(kind, tmp_path, Fake(kind, tmp_path.with_name(f"{tmp_path.name}.scheduler")).install())


@pytest.fixture
def tree(tmp_path):
    """A recipe whose programs only record how they are called, in a path with blanks."""
    return Tree(tmp_path / "a clone (1)")
