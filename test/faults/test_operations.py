"""Some of the failing file operations of `bash test/faults.sh`."""

import os

from faults import operations
from faults.hooks.file_operations import ACTIONS, Operations


def test_failing_file_operations_leave_the_old_or_the_new_state(campaign):
    small = campaign()
    operations.run(small)
    assert small.violations == []
    assert {what.partition(": ")[2] for _, what in small.counts} == set(ACTIONS)
    assert sum(injected for injected, _ in small.counts.values()) >= 5 * operations.SMALL


def test_what_is_counted(tmp_path):
    """Each write, fsync, rename and removal below the directory, and nothing elsewhere."""
    inside, names = tmp_path / "inside", tmp_path / "names"
    inside.mkdir()
    child = os.fork()
    if child == 0:
        counted = Operations(inside, 0, "")
        counted.install()
        with open(tmp_path / "outside", "w") as stream:
            stream.write("x")
        with open(inside / "a", "w") as stream:
            stream.write("x")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(inside / "a", inside / "b")
        (inside / "b").unlink()
        (inside / "c").mkdir()
        names.write_text(" ".join(counted.names))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert names.read_text() == "open write fsync replace unlink mkdir"
