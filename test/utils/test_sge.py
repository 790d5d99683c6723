"""What only Grid Engine does, with a real one."""

from cluster import STUBBORN, end


def test_a_job_over_its_time_limit(sge):
    status, err = sge.call("--time", "1s", "x.log", *STUBBORN)
    assert status == 1 and "1 (over its limit of time or memory)" in err


def test_a_job_in_the_error_state_is_deleted(sge):
    process = sge.start(*sge.conf("command qsub -i /nowhere/stdin\n"), "JOB=1:2", "x.JOB.log", "true")
    status, err = end(process)
    assert status == 1 and "1 (could not start: " in err and "/nowhere/stdin" in err
    sge.check_nothing_is_left()
