"""Two preparations of data at once."""

from faults import locks


def test_the_second_of_two_preparations_refuses_and_a_dead_one_holds_nothing(campaign):
    small = campaign()
    locks.run(small)
    assert small.violations == []
    assert sum(injected for injected, _ in small.counts.values()) == 2
