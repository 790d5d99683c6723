"""What backends make of what schedulers say, and what they tell them."""

import sys

import pytest
from cluster import UTILS

sys.path.insert(0, str(UTILS))  # as it is for the programs there
from jobrunner import pbs, sge, slurm
from jobrunner.backend import SchedulerError, Submission
from jobrunner.cluster import warned_after

sys.path.remove(str(UTILS))

QSTAT = """Job Id: 12[].head
    Job_Name = jx
    job_state = B
    array_indices_submitted = 1-3

Job Id: 12[1].head
    Job_Name = jx
    job_state = X
    exec_host = n7/0*4
    stime = Sat Nov 21 12:00:00 2026
    Variable_List = PBS_O_HOME=/h,PBS_O_PATH=/usr/local/bin:/usr/bin:/bin:/usr
\t/games:/opt/a,job_state = F
    Exit_status = -29
    comment = Job run at Sat Nov 21 at 12:00 on (n7:ncpus=4)

Job Id: 12[2].head
    Job_Name = jx
    job_state = Q
    comment = Not Running: Insufficient amount of resource: ngpus (R: 8 A: 4
\tT: 4)

Job Id: 12[3].head
    Job_Name = jx
    job_state = R
    exec_host = n8/0*4
"""


@pytest.fixture
def answers(monkeypatch):
    """What qstat answers, by its words; an exception is what it fails with."""
    said = {}

    def answer(words):
        text = said[tuple(words[1:])]
        if isinstance(text, Exception):
            raise text
        return text

    monkeypatch.setattr(pbs, "call_scheduler", answer)
    return said


def test_states_of_an_array_of_pbs(answers):
    answers["-f", "-x", "-t", "12[].head"] = QSTAT
    states = pbs.Pbs().states("12[].head", range(1, 4))
    assert {job: (state.phase.name, state.reason, state.node, state.status) for job, state in states.items()} == {
        1: ("STOPPED", "out of time; request more with --time", "n7", 1),
        2: ("WAITING", "Not Running: Insufficient amount of resource: ngpus (R: 8 A: 4T: 4)", "", 1),
        3: ("RUNNING", "", "n8", 1),
    }


def test_a_server_of_pbs_without_history_is_queried_without(answers):
    answers["-f", "-x", "-t", "12[].head"] = SchedulerError(
        "qstat: PBS is not configured to maintain job history 12[].head"
    )
    answers["-f", "-t", "12[].head"] = QSTAT
    backend = pbs.Pbs()
    assert sorted(backend.states("12[].head", ())) == [1, 2, 3]
    del answers["-f", "-x", "-t", "12[].head"]
    answers["-f", "-t", "12[].head"] = SchedulerError("qstat: Unknown Job Id 12[].head")
    assert backend.states("12[].head", ()) == {}
    answers["-f", "-t", "12[].head"] = SchedulerError("qstat: cannot connect to server head (errno=111)")
    with pytest.raises(SchedulerError, match="errno=111"):
        backend.states("12[].head", ())


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"job_state": "F", "Exit_status": "1", "exec_host": "n1/0"}, ("ENDED", "")),
        ({"job_state": "F", "Exit_status": "271"}, ("STOPPED", "killed by signal 15: cancelled, or over a limit")),
        ({"job_state": "F", "Exit_status": "-77"}, ("STOPPED", "stopped by PBS with Exit_status -77; ")),
        ({"job_state": "X"}, ("STOPPED", "cancelled")),
        ({"job_state": "X", "exec_host": "n1/0"}, ("ENDED", "")),
        ({"job_state": "H"}, ("WAITING", "held")),
        ({"job_state": "S", "exec_host": "n1/0"}, ("RUNNING", "suspended")),
    ],
)
def test_states_of_jobs_of_pbs(row, expected):
    state = pbs.state_of(row)
    assert (state.phase.name, state.reason) == expected


def test_names_that_every_qsub_accepts(tmp_path):
    for name in ("1 a/b;$(x).JOB.abcdefgh", "x.abcdefgh", "é" * 40 + ".abcdefgh"):
        short = Submission(name, tmp_path, [], range(1, 2), None, tmp_path).short_name
        assert len(short) <= 15 and short[0].isalpha() and short.endswith(".abcdefgh")
        assert set(short) <= set("abcdefghijklmnopqrstuvwxyzJOB._1")


def test_a_job_is_warned_two_minutes_before_its_time_limit_or_halfway():
    limits = ("24:00:00", "0:05:00", "0:03:00", "0:00:03", None)
    assert [warned_after(limit) for limit in limits] == [86280, 180, 90, 2, 0]


def test_clusters_and_servers_are_named_in_every_way_that_submitting_knows(monkeypatch):
    for words in (["-M", "a,b"], ["-Ma,b"], ["--clusters=a,b"], ["--clusters", "a,b"], ["--cluster=c", "-M", "a,b"]):
        assert slurm.clusters(["sbatch", "--cluster-constraint=x", *words, "--mem=1G"]) == "a,b"
    assert slurm.clusters(["sbatch", "--cluster-constraint=x"]) == ""
    monkeypatch.setenv("SBATCH_CLUSTERS", "c")
    assert (slurm.clusters(["sbatch"]), slurm.clusters(["sbatch", "-Ma"])) == ("c", "a")
    for words in (["-q", "workq@b.org"], ["-qworkq@b.org"], ["-q", "@b.org"], ["-q", "workq@a", "-q", "workq@b.org"]):
        assert pbs.server(["qsub", *words, "-l", "mem=1gb"]) == ["@b.org"]
    for words in ([], ["-q", "workq", "-M", "me@b.org"], ["-q", "@b.org", "-q", "workq"]):
        assert pbs.server(["qsub", *words]) == []


def test_a_warned_job_is_requeued_by_the_cluster_of_its_node(monkeypatch):
    called = []
    monkeypatch.setattr(slurm, "call_scheduler", lambda words, environment: called.append((words, environment)))
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    monkeypatch.setenv("SLURM_CLUSTERS", "gpu")  # by a login shell's files
    slurm.Slurm().requeue()
    [(words, environment)] = called
    assert words == ["scontrol", "requeue", "78"] and "SLURM_CLUSTERS" not in environment


@pytest.mark.parametrize(
    ("failed", "status", "expected"),
    [
        ("0", "1", ("ENDED", "")),
        ("37  : qmaster enforced h_rt", "137", ("STOPPED", "over its limit of time or memory")),
        ("100 : assumedly after job", "137", ("STOPPED", "killed by signal 9: cancelled, or out of memory")),
        ("26  : opening input/output file", "0", ("STOPPED", "failed 26 : opening input/output file")),
    ],
)
def test_ends_of_jobs_of_grid_engine(failed, status, expected):
    state = sge.end_of(failed, status)
    assert (state.phase.name, state.reason) == expected
    assert sge.end_of("25  : rescheduling", "0") is None
