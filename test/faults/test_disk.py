"""One of the full disks of `bash test/faults.sh`."""

from faults import disk
from faults.campaign import Campaign


def test_a_full_disk_is_named_and_a_rerun_completes(tmp_path):
    campaign = Campaign(tmp_path, seed=1, small=True)
    disk.run(campaign)
    assert campaign.violations == []
    assert dict(campaign.counts) == {("disk", "dump"): [1, 1]}
