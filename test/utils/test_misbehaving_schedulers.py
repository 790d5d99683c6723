"""Runners of clusters while the scheduler makes trouble: a fake one, see test/cluster/fake.py."""

import re
import signal

import pytest
from cluster import STUBBORN, end, training, wait_for

every_cluster = pytest.mark.parametrize("fake", ["slurm", "sge", "pbs"], indirect=True)
one_cluster = pytest.mark.parametrize("fake", ["pbs"], indirect=True)  # for what all runners share


@every_cluster
def test_answers_and_status_files_that_do_not_come_at_once(fake):
    """Of five attempts to submit one is refused, two cannot ask about the first, and the answer to one is lost."""
    fake.scheduler.make_trouble(busy=1, silent=2, unheard=1, forgetful=True)
    status, err = fake.call("JOB=2:3", "x.JOB.log", "sh", "-c", "sleep 2; exit $((JOB - 2))")
    assert status == 1 and "1 of 2 jobs failed: 3 (status 1)" in err
    assert err.count("trying again") == 4 and len(fake.scheduler.submitted()) == 1
    fake.scheduler.make_trouble(early=1, forgetful=True)
    status, err = fake.call("JOB=2:3", "y.JOB.log", "sh", "-c", "exit $((JOB - 2))")
    assert status == 1 and "1 of 2 jobs failed: 3 (status 1)" in err


@every_cluster
def test_jobs_that_leave_no_status_are_named_with_the_reason(fake):
    fake.scheduler.make_trouble(kill={"2": "signal", "3": "memory", "4": "time"}, lose=[5])
    status, err = fake.call("JOB=1:5", "x.JOB.log", "sleep", "0.3")
    reasons = r"2 \([^)]*(signal 9|Signal:9).*, 3 \([^)]*memory.*, 4 \([^)]*time.*, 5 \(cancelled\); log: x.JOB.log"
    assert status == 1 and re.search(rf"4 of 5 jobs failed: {reasons}", err)


@every_cluster
def test_cancelling_jobs_that_ignore_signals_by_a_scheduler_that_is_busy(fake):
    fake.scheduler.make_trouble(deaf=1)
    process = fake.start("x.log", *STUBBORN)
    fake.wait_for_start("x.log")
    process.send_signal(signal.SIGTERM)
    status, err = end(process)
    assert status == 75 and "run the same command again" in err and fake.jobs() == []


@one_cluster
def test_five_attempts_to_submit(fake):
    fake.scheduler.make_trouble(busy=5)
    status, err = fake.call("x.log", "true")
    assert status == 1 and err.count("trying again") == 4 and "x.log: not submitted: qsub: Connection refused" in err
    assert fake.scheduler.submitted() == {} and not (fake.directory / "q").exists()


@one_cluster
def test_no_job_is_submitted_while_one_of_the_same_log_cannot_be_cancelled(fake):
    process = fake.start("x.log", *training(steps=600), CANCEL_SECONDS="1")
    fake.wait_for_start("x.log")
    fake.scheduler.make_trouble(deaf=10**6)
    process.send_signal(signal.SIGTERM)
    status, err = end(process)
    assert status == 75 and "cancel it manually" in err
    status, err = fake.call("x.log", "echo", "second", CANCEL_SECONDS="1")
    assert (status, len(fake.scheduler.submitted())) == (1, 1) and "still runs; cancel it first" in err
    fake.scheduler.make_trouble()
    assert fake.call("x.log", "echo", "second")[0] == 0
    assert len(fake.scheduler.submitted()) == 2 and fake.body()[-1] == "second"


@one_cluster
def test_interrupted_while_jobs_are_being_submitted(fake):
    fake.scheduler.make_trouble(slow=1)
    process = fake.start("x.log", "sleep", "60")
    wait_for((fake.directory / "q").exists)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 75 and fake.jobs() == []


@pytest.mark.parametrize(
    ("fake", "option"),
    [("slurm", "-M cpu,gpu"), ("slurm", ""), ("pbs", "-q workq@gpu")],
    indirect=["fake"],
)
def test_jobs_of_another_cluster_or_server_are_queried_and_cancelled_there(fake, option):
    """The answer to their submission is lost, and another runner of them is killed."""
    words = fake.conf(f"command {'sbatch' if fake.kind == 'slurm' else 'qsub'} {option}\n")
    there = {} if option else {"SLURM_CLUSTERS": "cpu,gpu"}
    fake.scheduler.make_trouble(unheard=1)
    status, err = fake.call(*words, "JOB=1:2", "x.JOB.log", "sh", "-c", "sleep 1; exit $((JOB - 1))", **there)
    assert status == 1 and "1 of 2 jobs failed: 2 (status 1)" in err and len(fake.scheduler.submitted()) == 1
    process = fake.start(*words, "x.log", "sleep", "60", **there)
    wait_for((fake.directory / "x.log").exists)
    process.kill()
    process.communicate()
    status, err = fake.call("x.log", "true")  # here
    assert status == 0 and "a runner of the same jobs was killed" in err
    wait_for(lambda: fake.jobs() == [])  # the last one has done its work, but may not have left the queue
    assert [job["where"] == "gpu" for job in fake.scheduler.submitted().values()] == [True, True, False]
