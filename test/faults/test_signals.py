"""Two of the signals of `bash test/faults.sh`: one in a training, one elsewhere."""

from faults import signals


def test_a_signal_ends_a_program_with_status_75_and_a_rerun_completes(campaign):
    small = campaign()
    signals.run(small)
    assert small.violations == []
    assert dict(small.counts) == {("signals", "train step"): [1, 1], ("signals", "dump"): [1, 1]}
