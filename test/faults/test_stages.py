"""Stages 1 and 2, one by one, again, and in one go."""

from faults import stages


def test_stages_one_by_one_give_what_all_in_one_go_do_and_again_do_nothing(campaign):
    small = campaign()
    stages.run(small)
    assert small.violations == []
    assert small.counts["stages", "complete, again"] == [2, 2]
