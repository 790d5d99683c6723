"""The Slurm runner, utils/slurm.py, with a real Slurm that is started here."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from functools import partial

import cluster
import pytest
from cluster import UTILS, body, jobs, wait_for
from cluster.jobs import HOSTILE, STUBBORN, end, running, training

conf = partial(jobs.conf, runner="slurm")


@pytest.fixture
def start(slurm, tmp_path):
    return lambda *words, **more: cluster.start("slurm", tmp_path, *words, **{**slurm.environment, **more})


@pytest.fixture
def call(slurm, tmp_path):
    return lambda *words, **more: cluster.call("slurm", tmp_path, *words, **{**slurm.environment, **more})


def test_an_array_of_jobs(call, tmp_path):
    script = 'mkdir lock && sleep 2 && rmdir lock && echo "job JOB: $OMP_NUM_THREADS <$CUDA_VISIBLE_DEVICES>"'
    words = ["--max-jobs-run", "1", "--mem", "100M", "JOB=2:3", "a %j 'b/x.JOB.log", "sh", "-c", script]
    assert call(*words, CUDA_VISIBLE_DEVICES="0") == (0, "", "")
    logs = tmp_path / "a %j 'b"
    assert sorted(path.name for path in logs.iterdir()) == ["x.2.log", "x.3.log"]
    assert body(logs / "x.3.log") == ["job 3: 1 <>"]
    head = (logs / "x.3.log").read_text(encoding="utf-8").splitlines()[0]
    assert re.match(r"# host \S+, 1 threads, GPU none, slurm job \d+$", head)


def test_exit_statuses_and_ends_of_failing_logs(start, tmp_path):
    scripts = {
        75: "test JOB = 1 || exit 75",
        2: "test JOB = 1 || exit 2",
        1: "test JOB = 1 && exit 75; test JOB = 3 || kill -9 $$; echo reason JOB >&2; exit 3",
    }
    processes = {
        expected: start("JOB=1:3", f"{expected}.JOB.log", "sh", "-c", text) for expected, text in scripts.items()
    }
    ends = {expected: end(process) for expected, process in processes.items()}
    assert {expected: status for expected, (status, _) in ends.items()} == {75: 75, 2: 2, 1: 1}
    err = ends[1][1]
    assert "3 of 3 jobs failed: 1 (status 75), 2 (status 137), 3 (status 3); log: 1.JOB.log" in err
    assert "--- 1.3.log\n    reason 3\n" in err
    assert "1 (" not in ends[75][1]


def test_arguments_environment_and_configuration_are_data(call, tmp_path):
    configuration = conf(
        tmp_path, text="option comment=* --comment=$0\ndefault comment='$(touch canary);`touch canary`'\n"
    )
    script = "import os, sys; print(ascii([sys.argv[1:], os.environ['HOSTILE'], os.environ.get('SLURM_HOSTILE')]))"
    (tmp_path / "evil").write_text("touch canary\n", encoding="utf-8")
    status, _, err = call(
        *configuration, "--comment", "$(touch canary)", "x.log", sys.executable, "-c", script, *HOSTILE,
        HOSTILE="'\n$(touch canary)\n#SBATCH --hold", BASH_ENV=str(tmp_path / "evil"), ENV=str(tmp_path / "evil"),
        SLURM_HOSTILE="of a job around this one", SLURM_NTASKS="7", SLURM_MEM_PER_NODE="1", PYTHONUTF8="1",
        **{"BASH_FUNC_exec%%": "() { touch canary; }"},
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert body(tmp_path / "x.log") == [ascii([HOSTILE, "'\n$(touch canary)\n#SBATCH --hold", None])]
    assert not list(tmp_path.rglob("canary"))


def test_what_is_submitted_can_be_read_by_nobody_else(start, slurm, tmp_path):
    process = start("x.log", "sleep", "60")
    wait_for((tmp_path / "x.log").exists)
    (directory,) = (tmp_path / "q").iterdir()
    assert (directory.stat().st_mode & 0o777, (directory / "spec.json").stat().st_mode & 0o777) == (0o700, 0o600)
    spec = json.loads((directory / "spec.json").read_text(encoding="utf-8"))
    assert "sleep" not in (directory / "script.sh").read_text(encoding="utf-8") and spec["command"] == ["sleep", "60"]
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 75


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.recipe)])
def test_interruption_cancels_what_was_submitted(start, slurm, tmp_path, number):
    process = start("--max-jobs-run", 1, "JOB=1:3", "x.JOB.log", *training(steps=600, state="JOB"))
    wait_for(lambda: any(running(tmp_path / f"x.{job}.log") for job in (1, 2, 3)))
    process.send_signal(number)
    status, err = end(process)
    assert status == 75 and "run the same command again" in err
    assert slurm.jobs(tmp_path) == []
    (log,) = tmp_path.glob("x.*.log")
    assert re.fullmatch(r"to step \d+ SIGTERM", body(log)[-1])  # one signal, and time to save
    assert not (tmp_path / "q").exists()


def test_cancelled_from_outside(start, slurm, tmp_path):
    waits = start(*conf(tmp_path, text="command sbatch --hold\n"), "w.log", "true")
    runs = start("r.log", *training(steps=600))
    wait_for(lambda: running(tmp_path / "r.log") and len(slurm.jobs(tmp_path)) == 2)
    slurm.ask("scancel", *slurm.jobs(tmp_path))
    for process in (waits, runs):
        status, err = end(process)
        assert status == 75 and "1 of 1 jobs failed: 1 (cancelled)" in err
    assert "to step" in err


def requeued(slurm, tmp_path):
    """Without all of the two minutes that Slurm leaves between attempts; some time is needed, or it mixes them up."""
    wait_for(lambda: slurm.jobs(tmp_path, "pending"))
    slurm.ask("scontrol", "update", f"JobId={slurm.jobs(tmp_path)[0]}", "StartTime=now+2")


@pytest.mark.parametrize("how", ["warning", pytest.param("requeue", marks=pytest.mark.recipe)])
def test_a_job_that_is_queued_again_appends_to_its_log_and_ends_well(start, slurm, tmp_path, how):
    process = start("--requeue", "true", "x.log", *training(steps=50))
    wait_for(lambda: running(tmp_path / "x.log"))
    if how == "warning":  # as before the time limit
        slurm.ask("scancel", "--batch", "--signal=USR1", *slurm.jobs(tmp_path))
    else:
        slurm.ask("scontrol", "requeue", *slurm.jobs(tmp_path))
    requeued(slurm, tmp_path)
    assert end(process) == (0, "")
    lines = (tmp_path / "x.log").read_text(encoding="utf-8").splitlines()
    assert ", restart 1" not in lines[0] and sum(line.endswith(", restart 1") for line in lines) == 1
    said = body(tmp_path / "x.log")
    steps = re.fullmatch(r"to step (\d+) SIGTERM", said[1])[1]
    assert said == ["from step 0", said[1], f"from step {steps}", "to step 50"]
    assert 0 < int(steps) < 50
    assert len([line for line in lines if line.startswith("# Ended at ")]) == 2


@pytest.mark.recipe
def test_time_limits(start, slurm, tmp_path):
    # Slurm looks after time limits every 30 s, and warns as much earlier.
    configuration = conf(tmp_path, text="option requeue=true --requeue --signal=B:USR1@50\n")
    training_on = start(*configuration, "--requeue", "true", "--time", "1m", "x.log", *training(steps=450))
    stubborn = start("--time", "60s", "stubborn.log", *STUBBORN)
    while training_on.poll() is None:
        for job in slurm.jobs(tmp_path, "pending"):
            with contextlib.suppress(subprocess.CalledProcessError):  # it has started
                slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now+2")
        time.sleep(3)
    assert end(training_on)[0] == 0
    said = [line.split()[2] for line in body(tmp_path / "x.log")]
    assert said[0] == "0" and said[-1] == "450" and len(said) > 2
    assert all(stopped == resumed for stopped, resumed in zip(said[1:-1:2], said[2::2], strict=True))
    status, err = end(stubborn)
    assert status == 1 and "1 (out of time; request more with --time)" in err


@pytest.mark.recipe
def test_without_requeue_a_warned_job_ends_with_75(start, slurm, tmp_path):
    process = start("x.log", *training(steps=600))
    wait_for(lambda: running(tmp_path / "x.log"))
    slurm.ask("scancel", "--batch", "--signal=USR1", *slurm.jobs(tmp_path))
    status, err = end(process)
    assert status == 75 and "1 (status 75)" in err


@pytest.mark.recipe
def test_a_failed_node(start, slurm, tmp_path):
    process = start(*conf(tmp_path, text="command sbatch --nodelist=n1\n"), "x.log", "sleep", "60")
    wait_for((tmp_path / "x.log").exists)
    slurm.ask("scontrol", "update", "NodeName=n1", "State=DOWN", "Reason=test")
    try:
        status, err = end(process)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # it has come back by itself
            slurm.ask("scontrol", "update", "NodeName=n1", "State=RESUME")
    assert status == 75 and "1 (its node failed)" in err


@pytest.mark.recipe
def test_a_job_that_does_not_start_says_why(start, slurm, tmp_path):
    process = start(*conf(tmp_path, text="command sbatch --hold\n"), "x.log", "true")
    assert re.search(r"slurm job \d+ waits: JobHeldUser \(for 1\d s now\)", process.stderr.readline())
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 75


def test_a_refused_job_is_one_line(call, tmp_path):
    status, out, err = call(*conf(tmp_path, text="command sbatch --partition=nowhere\n"), "x.log", "true")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "x.log: not submitted: sbatch: error: invalid partition specified: nowhere" in err
    assert "--partition=nowhere" in err.split("command:")[1]
    assert not (tmp_path / "q").exists()


@pytest.mark.recipe
def test_logs_that_the_node_cannot_see(slurm, tmp_path):
    (slurm.apart / "here").touch()
    if slurm.ask("srun", "--nodelist=n2", "ls", slurm.apart):
        pytest.skip("no mount namespaces here: both nodes see the same files")
    configuration = conf(tmp_path, text="command sbatch --nodelist=n2\n")[1]
    words = ["--config", tmp_path / configuration, slurm.apart / "logs" / "x.log", "true"]
    status, _, err = cluster.call("slurm", tmp_path, *words, **slurm.environment)
    assert status == 1
    assert f"lost: it left no status (JobLaunchFailure); can n2 write {slurm.apart}/logs, and is that on a" in err


@pytest.mark.recipe
def test_a_log_that_the_node_cannot_write(call, tmp_path):
    (tmp_path / "x.log").mkdir()
    status, _, err = call("x.log", "true")
    assert status == 1
    assert re.search(r"1 \(\S+ could not use x.log: Is a directory\)", err)


def test_gpus_are_those_that_slurm_gives(call, tmp_path):
    assert call("--gpu", 2, "x.log", "sh", "-c", 'echo "$CUDA_VISIBLE_DEVICES"', CUDA_VISIBLE_DEVICES="7")[0] == 0
    assert body(tmp_path / "x.log") == ["0,1"]


def test_two_nodes(call, tmp_path):
    script = 'echo "$SLURM_NODEID $NUM_NODES $MASTER_ADDR:$MASTER_PORT $OMP_NUM_THREADS $1"'
    words = ["--num-nodes", 2, "--num-threads", 2, "x.log", "sh", "-c", script, "sh", "$(touch canary) é"]
    assert call(*words, PYTHONUTF8="1") == (0, "", "")
    first, second = sorted(body(tmp_path / "x.log"))
    assert re.fullmatch(r"0 2 \S+:\d+ 2 \$\(touch canary\) é", first)
    assert second == "1" + first[1:]


@pytest.mark.recipe
def test_a_training_on_two_nodes_is_warned_and_queued_again(start, slurm, tmp_path):
    python, _, text, _, steps = training(steps=50)
    script = ["sh", "-c", 'exec "$1" -c "$2" "state.$SLURM_NODEID" "$3"', "sh", python, text, steps]
    process = start("--num-nodes", 2, "--requeue", "true", "x.log", *script)
    wait_for(lambda: running(tmp_path / "x.log") and len(body(tmp_path / "x.log")) == 2)
    slurm.ask("scancel", "--batch", "--signal=USR1", *slurm.jobs(tmp_path))
    requeued(slurm, tmp_path)
    assert end(process) == (0, "")
    said = [line.split() for line in body(tmp_path / "x.log") if not line.startswith("srun: ")]
    assert len(said) == 8 and sum(line[1:] == ["step", "0"] for line in said) == 2
    assert sorted(int(line[2]) for line in said if line[0] == "to")[2:] == [50, 50]


@pytest.mark.recipe
def test_a_runner_within_a_job(slurm, tmp_path):
    inner = [sys.executable, UTILS / "slurm.py", "inner.log", "echo", "deep"]
    assert cluster.call("slurm", tmp_path, "--mem", "64M", "outer.log", *inner, **slurm.environment)[0] == 0
    assert body(tmp_path / "inner.log") == ["deep"]


def test_jobs_of_a_killed_runner_are_cancelled_by_the_next(start, call, slurm, tmp_path):
    process = start("x.log", "sleep", "60")
    wait_for((tmp_path / "x.log").exists)
    status, _, err = call("x.log", "true")
    assert status == 1 and re.search(r"x.log: another runner \(host \S+, process \d+, since \S+\) uses it", err)
    process.kill()
    process.communicate()
    assert len(slurm.jobs(tmp_path)) == 1
    status, _, err = call("x.log", "echo", "mine")
    assert status == 0 and "a runner of the same jobs was killed" in err
    assert slurm.jobs(tmp_path) == []
    assert body(tmp_path / "x.log")[-1] == "mine"
    assert not (tmp_path / "q").exists()
