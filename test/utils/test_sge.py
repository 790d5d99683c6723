"""The Grid Engine runner, utils/sge.py, with a real Grid Engine that is started here."""

import os
import re
import signal
import sys

import pytest
from cluster import UTILS, body, jobs, missing, wait_for
from cluster.grid_engine import GridEngine
from cluster.jobs import HOSTILE, STUBBORN, conf, end, running, training


@pytest.fixture(scope="module")
def grid():
    if reason := missing(*GridEngine.needs):
        pytest.skip(reason)
    if os.geteuid() != 0:
        pytest.skip("Grid Engine's daemons want to be started by root")
    with GridEngine.running() as started:
        yield started


@pytest.fixture
def start(grid, tmp_path):
    return lambda *words, **more: jobs.start("sge", tmp_path, *words, **{**grid.environment, **more})


@pytest.fixture
def call(start):
    return lambda *words, **more: end(start(*words, **more))


def test_an_array_of_jobs(call, tmp_path):
    script = 'mkdir lock && sleep 0.2 && rmdir lock && echo "job JOB: $OMP_NUM_THREADS <$CUDA_VISIBLE_DEVICES> $NSLOTS"'
    words = ["--max-jobs-run", "1", "--num-threads", "2", "JOB=2:3", "a b/x.JOB.log", "sh", "-c", script]
    assert call(*words, CUDA_VISIBLE_DEVICES="0") == (0, "")
    logs = tmp_path / "a b"
    assert sorted(path.name for path in logs.iterdir()) == ["x.2.log", "x.3.log"]
    assert body(logs / "x.3.log") == ["job 3: 2 <> 2"]
    head = (logs / "x.3.log").read_text(encoding="utf-8").splitlines()[0]
    assert re.match(r"# host \S+, 2 threads, GPU none, sge job \d+$", head)


def test_exit_statuses_even_those_that_mean_something_to_grid_engine(start, grid, tmp_path):
    scripts = {
        75: "test JOB = 1 || exit 75",
        2: "test JOB = 1 || exit 2",
        1: "test JOB = 3 && kill -9 $$; echo reason JOB >&2; exit $((98 + JOB))",
    }
    processes = {status: start("JOB=1:3", f"{status}.JOB.log", "sh", "-c", text) for status, text in scripts.items()}
    ends = {expected: end(process) for expected, process in processes.items()}
    assert {expected: status for expected, (status, _) in ends.items()} == {75: 75, 2: 2, 1: 1}
    err = ends[1][1]
    assert "3 of 3 jobs failed: 1 (status 99), 2 (status 100), 3 (status 137); log: 1.JOB.log" in err
    assert "--- 1.2.log\n    reason 2\n" in err
    wait_for(lambda: grid.jobs() == {}, 20)  # none is queued again, none is in the error state
    assert body(tmp_path / "1.1.log") == ["reason 1"]


def test_arguments_environment_and_paths_are_data(grid, tmp_path):
    directory = tmp_path / "it's $HOME, x:y\n#$ -h"
    directory.mkdir()
    configuration = conf(directory, "sge", "option name=* -ac hint=$0\ndefault name='$(touch canary);`touch canary`'\n")
    script = "import os, sys; print(ascii([sys.argv[1:], os.environ['HOSTILE'], os.environ.get('SGE_HOSTILE')]))"
    process = jobs.start(
        "sge", directory, *configuration, "--name", "$(touch canary)", "x.log", sys.executable, "-c", script, *HOSTILE,
        HOSTILE="'\n$(touch canary)\n#$ -h", SGE_HOSTILE="of a job around this one", SGE_TASK_ID="7", PYTHONUTF8="1",
        **{"BASH_FUNC_exec%%": "() { touch canary; }"}, **grid.environment,
    )  # fmt: skip
    assert end(process) == (0, "")
    assert body(directory / "x.log") == [ascii([HOSTILE, "'\n$(touch canary)\n#$ -h", None])]
    assert not list(tmp_path.rglob("canary"))


def test_interruption_cancels_what_was_submitted(start, grid, tmp_path):
    process = start("--max-jobs-run", 1, "JOB=1:3", "x.JOB.log", *training(steps=600, state="JOB"))
    wait_for(lambda: running(tmp_path / "x.1.log"))
    process.send_signal(signal.SIGINT)
    status, err = end(process)
    assert status == 75 and "run the same command again" in err
    assert grid.jobs() == {}
    assert re.match(r"to step \d+ (SIGUSR2 )?SIGTERM", body(tmp_path / "x.1.log")[-1])
    assert not (tmp_path / "q").exists()


def test_jobs_deleted_by_hand(start, grid, tmp_path):
    waits = start(*conf(tmp_path, "sge", "command qsub -h\n"), "w.log", "true")
    runs = start("r.log", *training(steps=600))
    stubborn = start("--requeue", "true", "s.log", *STUBBORN)
    wait_for(lambda: running(tmp_path / "r.log") and running(tmp_path / "s.log") and len(grid.jobs()) == 3)
    grid.ask("qdel", *{job.split(".")[0] for job in grid.jobs()})
    for process in (waits, runs):
        status, err = end(process)
        assert status == 75 and "1 of 1 jobs failed: 1 (" in err
    assert "to step" in body(tmp_path / "r.log")[-1]
    status, err = end(stubborn)
    assert status == 75 and "1 (cancelled)" in err
    assert grid.jobs() == {}


def test_time_limits_and_jobs_that_are_queued_again_append_to_their_logs(start, grid, tmp_path):
    warned = start("--requeue", "true", "--time", "4s", "w.log", *training(steps=30, state="w"))
    by_hand = start("--requeue", "true", "h.log", *training(steps=40, state="h"))
    late = start("--time", "1s", "l.log", *STUBBORN)
    wait_for(lambda: running(tmp_path / "h.log"))
    number = re.search(r"sge job (\d+)", (tmp_path / "h.log").read_text(encoding="utf-8"))[1]
    grid.ask("qmod", "-rj", number)
    assert [end(process)[0] for process in (warned, by_hand)] == [0, 0]
    for log, steps in (("w.log", 30), ("h.log", 40)):
        lines = (tmp_path / log).read_text(encoding="utf-8").splitlines()
        assert ", restart 1" not in lines[0] and sum(line.endswith(", restart 1") for line in lines) >= 1
        said = body(tmp_path / log)
        taken = re.match(r"to step (\d+) ", said[1])[1]
        assert said[:3] == ["from step 0", said[1], f"from step {taken}"]
        assert said[-1] == f"to step {steps}" and 0 < int(taken) <= steps
    status, err = end(late)
    assert status == 1 and "1 (over its limit of time or memory)" in err


def test_jobs_that_cannot_start_and_why(start, grid, tmp_path):
    never = start(*conf(tmp_path, "sge", "command qsub -l arch=vax\n"), "n.log", "true")
    error = start(*conf(tmp_path, "sge", "command qsub -i /nowhere/stdin\n", "e"), "JOB=1:2", "e.JOB.log", "true")
    refused = start(*conf(tmp_path, "sge", "command qsub -l nonsense=1\n", "r"), "x.log", "true")
    status, err = end(refused)
    assert (status, err.count("\n")) == (1, 1)
    assert 'x.log: not submitted: qsub: Unable to run job: unknown resource "nonsense"' in err
    status, err = end(error)
    assert status == 1 and "1 (could not start: " in err and "/nowhere/stdin" in err
    assert re.search(r"sge job \d+ waits: .*arch=vax.* \(for \d+ s now\)", never.stderr.readline())
    never.send_signal(signal.SIGTERM)
    assert end(never)[0] == 75
    assert grid.jobs() == {}
    assert not (tmp_path / "q").exists()


def test_jobs_of_a_killed_runner_are_cancelled_by_the_next(start, call, grid, tmp_path):
    process = start("--gpu", 1, "x.log", "sleep", "60")
    wait_for((tmp_path / "x.log").exists)
    process.kill()
    process.communicate()
    status, err = call("--gpu", 2, "x.log", "echo", "mine")
    assert status == 0 and "a runner of the same jobs was killed" in err
    assert body(tmp_path / "x.log")[-1] == "mine"
    wait_for(lambda: grid.jobs() == {})


def test_a_runner_within_a_job_and_several_nodes(call, tmp_path):
    inner = [sys.executable, UTILS / "sge.py", "inner.log", "echo", "deep"]
    assert call("outer.log", *inner)[0] == 0
    assert body(tmp_path / "inner.log") == ["deep"]
    status, err = call("--num-nodes", 2, "x.log", "true")
    assert status == 2 and "--num-nodes '2'" in err
