"""What the PBS runner makes of what PBS says; its runs are in test_misbehaving_schedulers.py."""

import json

import pytest
from cluster import UTILS

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
def pbs(monkeypatch):
    monkeypatch.syspath_prepend(UTILS)
    from jobrunner import pbs

    return pbs


@pytest.fixture
def answers(pbs, monkeypatch):
    """What qstat answers, by its words; an exception is what it fails with."""
    said = {}

    def answer(words):
        text = said[tuple(words[1:])]
        if isinstance(text, Exception):
            raise text
        return text

    monkeypatch.setattr(pbs, "call_scheduler", answer)
    return said


def test_states_of_an_array(pbs, answers):
    answers["-f", "-x", "-t", "12[].head"] = QSTAT
    states = pbs.Pbs().states("12[].head")
    assert {job: (state.phase.name, state.reason, state.node, state.status) for job, state in states.items()} == {
        1: ("STOPPED", "out of time; request more with --time", "n7", 1),
        2: ("WAITING", "Not Running: Insufficient amount of resource: ngpus (R: 8 A: 4T: 4)", "", 1),
        3: ("RUNNING", "", "n8", 1),
    }


def test_a_server_that_keeps_no_history_is_asked_without(pbs, answers):
    answers["-f", "-x", "-t", "12[].head"] = pbs.SchedulerError(
        "qstat: PBS is not configured to maintain job history 12[].head"
    )
    answers["-f", "-t", "12[].head"] = QSTAT
    backend = pbs.Pbs()
    assert sorted(backend.states("12[].head")) == [1, 2, 3]
    del answers["-f", "-x", "-t", "12[].head"]
    answers["-f", "-t", "12[].head"] = pbs.SchedulerError("qstat: Unknown Job Id 12[].head")
    assert backend.states("12[].head") == {}
    answers["-f", "-t", "12[].head"] = pbs.SchedulerError("qstat: cannot connect to server head (errno=111)")
    with pytest.raises(pbs.SchedulerError, match="errno=111"):
        backend.states("12[].head")


def test_a_warned_job_is_submitted_once_more_by_itself_unless_all_is_cancelled(pbs, monkeypatch, tmp_path):
    from jobrunner.backend import Submission

    asked = []

    def answer(words):
        asked.append(words[0])
        if words[0] == "qstat":
            raise pbs.SchedulerError("qstat: Unknown Job Id")
        return f"{10 * len(asked)}{'[]' if '-J' in words else ''}.head\n"

    def warned(job):
        left = {"status": 75, "stopped": True, "error": "could not be requeued:  no"}
        (tmp_path / f"status.{job}").write_text(json.dumps(left), encoding="utf-8")

    monkeypatch.setattr(pbs, "call_scheduler", answer)
    backend = pbs.Pbs()
    backend.cancel("7.head")  # of a runner that was killed
    asked.clear()
    submitted = backend.submit(Submission("x", tmp_path / "s", ["qsub"], range(1, 3), None, tmp_path))
    warned(2)
    assert {job: state.phase.name for job, state in backend.states(submitted).items()} == {2: "WAITING"}
    assert (asked, (tmp_path / "submitted").read_text(encoding="utf-8")) == (
        ["qsub", "qstat", "qsub"],
        "10[].head 30.head",
    )
    assert not (tmp_path / "status.2").exists()
    backend.cancel(submitted)
    assert asked[3:] == ["qdel", "qdel"]
    warned(1)
    backend.states(submitted)
    assert "qsub" not in asked[3:]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"job_state": "F", "Exit_status": "0", "exec_host": "n1/0"}, ("ENDED", "")),
        ({"job_state": "F", "Exit_status": "1", "exec_host": "n1/0"}, ("ENDED", "")),
        ({"job_state": "F", "Exit_status": "-27"}, ("STOPPED", "out of memory; request more with --mem")),
        ({"job_state": "F", "Exit_status": "271"}, ("STOPPED", "killed by signal 15: cancelled, or over a limit")),
        ({"job_state": "F", "Exit_status": "-77"}, ("STOPPED", "stopped by PBS with Exit_status -77; ")),
        ({"job_state": "X"}, ("STOPPED", "cancelled")),
        ({"job_state": "X", "exec_host": "n1/0"}, ("ENDED", "")),
        ({"job_state": "H"}, ("WAITING", "held")),
        ({"job_state": "S", "exec_host": "n1/0"}, ("RUNNING", "suspended")),
        ({"job_state": "E", "exec_host": "n1/0"}, ("RUNNING", "")),
    ],
)
def test_states_of_jobs(pbs, row, expected):
    state = pbs.state_of(row)
    assert (state.phase.name, state.reason) == expected


def test_names_fit_every_server(pbs):
    names = [pbs.name_of(name) for name in ("1 a/b;$(x).JOB.abcdefgh", "x.abcdefgh", "é" * 40 + ".abcdefgh")]
    assert all(len(name) <= 15 and name[0].isalpha() and name.endswith(".abcdefgh") for name in names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzJOB._1") for name in names)


def test_a_time_limit_is_warned_of_two_minutes_before_or_at_half_of_it(monkeypatch):
    monkeypatch.syspath_prepend(UTILS)
    from jobrunner import sge
    from jobrunner.backend import warned_after

    assert [warned_after(limit) for limit in ("24:00:00", "0:05:00", "0:03:00", "0:00:03")] == [86280, 180, 90, 2]
    assert sge.warning(["qsub", "-l", "h_rt=1:00:00", "-r", "y"]) == ["-l", "s_rt=3480"]
    assert sge.warning(["qsub", "-l", "h_rt=1:00:00", "-r", "n"]) == []
    assert sge.warning(["qsub", "-r", "y"]) == []
