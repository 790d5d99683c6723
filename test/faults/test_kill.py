"""A few of the kills of `bash test/faults.sh`."""

from faults import kill


def test_a_stage_killed_at_any_moment_finishes_with_the_same_results(campaign):
    small = campaign(seed=3, kills=2)
    kill.run(small)
    assert small.violations == []
    assert sum(injected for injected, _ in small.counts.values()) == 2
