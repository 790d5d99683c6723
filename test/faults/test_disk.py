"""One of the full disks of `bash test/faults.sh`."""

from faults import disk


def test_a_full_disk_is_named_and_a_rerun_completes(campaign):
    small = campaign()
    disk.run(small)
    assert small.violations == []
    assert dict(small.counts) == {("disk", "dump"): [1, 1]}
