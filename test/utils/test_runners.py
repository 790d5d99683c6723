"""What all job runners do, with the schedulers that there are; what only some do is in the other files."""

import re
import signal
import sys

import pytest
from cluster import HOSTILE, UTILS, body, end, training, wait_for

every_runner = pytest.mark.parametrize("bench", ["local", "slurm", "sge", "pbs"], indirect=True)
every_cluster = pytest.mark.parametrize("bench", ["slurm", "sge", "pbs"], indirect=True)


@every_runner
def test_an_array_of_jobs_and_their_logs(bench):
    script = 'mkdir lock && sleep 0.3 && rmdir lock; echo "job JOB: $? $OMP_NUM_THREADS <$CUDA_VISIBLE_DEVICES>"'
    words = ["--mem", "100M", "JOB=2:3", "--max-jobs-run", 1, "--num_threads", 2, "a %j 'b/x.JOB.log"]
    assert bench.call(*words, "sh", "-c", script, CUDA_VISIBLE_DEVICES="0") == (0, "")
    logs = bench.directory / "a %j 'b"
    assert sorted(path.name for path in logs.iterdir()) == ["x.2.log", "x.3.log"]
    lines = (logs / "x.3.log").read_text(encoding="utf-8").splitlines()
    where = "" if bench.kind == "local" else rf", {bench.kind} job \d\S*"
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"
    expected = [
        rf"# host \S+, 2 threads, GPU none{where}",
        rf"# Started at {time}",
        r"# command: sh -c 'mkdir lock .*job 3: .*'",
        "job 3: 0 2 <>",
        rf"# Ended at {time} with exit status 0, duration \d+\.\d s",
    ]
    assert len(lines) == len(expected)
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(expected, lines, strict=True)), lines


@every_runner
def test_failed_jobs_are_named_with_the_ends_of_their_logs(bench):
    """Some exit statuses have a meaning for Grid Engine."""
    script = 'test JOB = 3 && kill -9 $$; test JOB = 4 && exit 0; printf "10 %%\\rreason JOB" >&2; exit $((98 + JOB))'
    status, err = bench.call("JOB=1:4", "x.JOB.log", "sh", "-c", script)
    assert status == 1
    assert "3 of 4 jobs failed: 1 (status 99), 2 (status 100), 3 (status 137); log: x.JOB.log" in err
    assert "--- x.2.log\n    reason 2\n--- x.3.log\n    (no output)\n" in err and "x.4.log" not in err
    assert bench.body("x.1.log") == ["10 %", "reason 1"]
    bench.check_nothing_is_left()  # no job is restarted or in an error state


@every_runner
def test_arguments_environment_and_paths_are_data(bench):
    bench.directory /= "it's $HOME, x:y\n#$ -h"
    bench.directory.mkdir()
    option = {"slurm": "--comment=$0", "sge": "-ac hint=$0", "pbs": "-W block=$0"}.get(bench.kind)
    words = []
    if option:
        words = bench.conf(f"option hint=* {option}\ndefault hint='$(touch canary);`touch canary`'\n")
        words += ["--hint", "$(touch canary)"]
    evil = bench.directory / "evil"
    evil.write_text("touch canary\n", encoding="utf-8")
    environment = {
        "HOSTILE": "'\n$(touch canary)\n#SBATCH --hold\n#$ -h",
        "BASH_ENV": str(evil),
        "ENV": str(evil),
        "BASH_FUNC_exec%%": "() { touch canary; }",
        "PYTHONUTF8": "1",
    }
    outer = {"slurm": ["SLURM_NTASKS", "SLURM_MEM_PER_NODE"], "sge": ["SGE_TASK_ID"]}.get(bench.kind, [])
    environment |= dict.fromkeys([*outer, "SLURM_HOSTILE", "SGE_HOSTILE", "PBS_HOSTILE"], "7")  # of a job around this
    own = f"{bench.kind.upper()}_HOSTILE"
    script = f"import os, sys; print(ascii([sys.argv[1:], os.environ['HOSTILE'], os.environ.get('{own}')]))"
    command = [sys.executable, "-c", script, *HOSTILE]
    assert bench.call(*words, "NUMBER=7", "x.NUMBER.log", *command, **environment) == (0, "")
    assert bench.body("x.7.log") == [ascii([HOSTILE, environment["HOSTILE"], None])]
    assert not list(bench.directory.parent.rglob("canary"))


@every_runner
def test_interruption_stops_running_jobs_and_starts_no_others(bench):
    process = bench.start("--max-jobs-run", 1, "JOB=1:3", "x.JOB.log", *training(steps=600, state="JOB"))
    wait_for(lambda: list(bench.directory.glob("x.*.log")))
    (log,) = [path.name for path in bench.directory.glob("x.*.log")]
    bench.wait_for_start(log)
    process.send_signal(signal.SIGINT)
    status, err = end(process)
    assert status == 75 and "run the same command again" in err
    assert len(list(bench.directory.glob("x.*.log"))) == 1
    assert re.fullmatch(r"to step \d+ (SIGUSR2 )?SIGTERM", bench.body(log)[-1])  # one signal, and time to save
    bench.check_nothing_is_left()


@every_runner
def test_a_command_that_does_not_exist_and_a_log_that_cannot_be_written(bench):
    assert "no-such-program: No such file" in bench.call("x.log", "no-such-program")[1]
    (bench.directory / "y.log").mkdir()
    status, err = bench.call("y.log", "true")
    assert status == 1 and "Is a directory" in err


@every_cluster
def test_jobs_cancelled_by_somebody_else(bench):
    process = bench.start("--max-jobs-run", 1, "JOB=1:2", "x.JOB.log", *training(steps=600, state="JOB"))
    bench.wait_for_start("x.1.log")
    bench.scheduler.cancel(bench.jobs())
    status, err = end(process)
    assert status == 75 and "2 of 2 jobs failed: 1 (" in err and "2 (cancelled" in err
    assert "to step" in bench.body("x.1.log")[-1]
    bench.check_nothing_is_left()


def resumed(bench, log, steps):
    """How often a training was started again, each time from where it had been stopped."""
    said = [line.split()[2] for line in bench.body(log)]
    assert said[0] == "0" and said[-1] == str(steps) and said[1:-1:2] == said[2::2], bench.body(log)
    return len(said) // 2 - 1


@every_cluster
def test_jobs_that_are_warned_before_their_time_limit_are_requeued_and_resume(bench):
    limit = [] if bench.kind == "slurm" else ["--time", "10s"]
    process = bench.start("--requeue", "true", *limit, "JOB=2:3", "x.JOB.log", *training(steps=70, state="JOB"))
    bench.wait_for_start("x.2.log", "x.3.log")
    bench.scheduler.warn(bench.jobs())
    assert end(process)[0] == 0
    assert all(resumed(bench, f"x.{job}.log", 70) >= 1 for job in (2, 3))
    assert "SIGTERM" in bench.body("x.2.log")[1]
    bench.check_nothing_is_left()


@every_cluster
def test_a_job_that_the_scheduler_restarts_appends_to_its_log(bench):
    process = bench.start("--requeue", "true", "x.log", *training(steps=100))
    bench.wait_for_start("x.log")
    bench.scheduler.restart(*bench.jobs())
    assert end(process)[0] == 0
    assert resumed(bench, "x.log", 100) == 1
    if bench.kind != "pbs":
        heads = [line for line in (bench.directory / "x.log").read_text().splitlines() if line.startswith("# host")]
        assert [", restart 1" in head for head in heads] == [False, True]


@every_cluster
def test_jobs_of_a_killed_runner_are_cancelled_by_the_next(bench):
    process = bench.start("x.log", *training(steps=600))
    bench.wait_for_start("x.log")
    (directory,) = (bench.directory / "q").iterdir()
    modes = [path.stat().st_mode & 0o777 for path in (directory, directory / "spec.json")]
    assert modes == [0o700, 0o600] and "import" not in (directory / "script.sh").read_text(encoding="utf-8")
    status, err = bench.call("x.log", "true")
    assert status == 1 and re.search(r"x.log: another runner \(host \S+, process \d+, since \S+\) uses it", err)
    process.kill()
    process.communicate()
    assert len(bench.jobs()) == 1
    status, err = bench.call("x.log", "echo", "mine")
    assert status == 0 and "a runner of the same jobs was killed" in err
    assert bench.body()[-1] == "mine"
    bench.check_nothing_is_left()


NEVER = {"slurm": "command sbatch --hold\n", "sge": "command qsub -l arch=vax\n", "pbs": ""}
REFUSED = {"slurm": "command sbatch --partition=nowhere\n", "sge": "command qsub -l nonsense=1\n", "pbs": ""}
SAID = {
    "slurm": ("JobHeldUser", "sbatch: error: invalid partition specified: nowhere"),
    "sge": (".*arch=vax.*", 'qsub: Unable to run job: unknown resource "nonsense"'),
    "pbs": ("Not Running: .*", "qsub: Job violates limits"),
}


@every_cluster
def test_why_a_job_waits_or_is_refused(bench):
    if bench.kind == "pbs":
        bench.scheduler.make_trouble(pending=True)
    waits, refused = SAID[bench.kind]
    process = bench.start(*bench.conf(NEVER[bench.kind]), "x.log", "true", REMARK_SECONDS="1")
    assert re.search(rf"{bench.kind} job \d\S* waits: {waits} \(for \d+ s now\)", process.stderr.readline())
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 75
    bench.check_nothing_is_left()
    if bench.kind == "pbs":
        bench.scheduler.make_trouble(refuse="qsub: Job violates limits")
    status, err = bench.call(*bench.conf(REFUSED[bench.kind]), "x.log", "true")
    assert (status, err.count("\n")) == (1, 1)
    assert f"x.log: not submitted: {refused}" in err and REFUSED[bench.kind].strip().partition("command ")[2] in err
    assert not (bench.directory / "x.log").exists()
    bench.check_nothing_is_left()


@every_cluster
def test_wrong_usage_is_one_line(bench):
    wrong = {
        "no program nosuchprogram on this machine; see cmd_backend": bench.conf("command nosuchprogram\n"),
        "--colour 'red': ": ["--colour", "red"],
    }
    if bench.kind != "slurm":
        wrong["--num-nodes '2': "] = ["--num-nodes", 2]
    for said, words in wrong.items():
        status, err = bench.call(*words, "x.log", "true")
        assert status == 2 and said in err and err.count("\n") == 1
    bench.check_nothing_is_left()


@every_cluster
def test_a_runner_within_a_job(bench):
    inner = [sys.executable, UTILS / f"{bench.kind}.py", "inner.log", "echo", "deep"]
    assert bench.call("--mem", "64M", "outer.log", *inner) == (0, "")
    assert body(bench.directory / "inner.log") == ["deep"]
