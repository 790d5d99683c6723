"""A few of the kills of `bash test/faults.sh`."""

from faults import kill
from faults.campaign import Campaign


def test_a_stage_killed_at_any_moment_finishes_with_the_same_results(tmp_path):
    campaign = Campaign(tmp_path, seed=3, kills=3, small=True)
    kill.run(campaign)
    assert campaign.violations == []
    assert sum(injected for injected, _ in campaign.counts.values()) == 3
