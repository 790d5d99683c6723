"""Runners of clusters while the scheduler's programs misbehave: programs in their place, see test/cluster/fake.py."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster import UTILS, body, wait_for
from cluster.fake import PROGRAMS, Scheduler
from cluster.jobs import HOSTILE, STUBBORN, conf, end, running, start, training

AT_ONCE = 8
HERE = Path(__file__).resolve().parents[1] / "cluster"


class Cluster:
    """A scheduler that misbehaves as told, and its runner."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind, self.directory, self.state = kind, directory, directory / "scheduler"
        programs = directory / "programs"
        self.state.mkdir()
        programs.mkdir()
        for program in PROGRAMS[kind]:
            command = shlex.join([sys.executable, "-S", str(HERE / "fake.py"), kind, program])
            (programs / program).write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
            (programs / program).chmod(0o755)
        self.environment = {"FAKE_SCHEDULER": str(self.state), "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        self.scheduler = Scheduler(self.state, kind)

    def start(self, *words: object, faults: dict | None = None, **more: str) -> subprocess.Popen:
        (self.state / "faults.json").write_text(json.dumps(faults or {}), encoding="utf-8")
        return start(self.kind, self.directory, *words, **self.environment, **more)

    def call(self, *words: object, **more: object) -> tuple[int, str]:
        return end(self.start(*words, **more))

    def ask(self, *words: object) -> None:
        subprocess.run(map(str, words), env={**os.environ, **self.environment}, check=True, timeout=60)

    def left(self) -> list[str]:
        """Tasks that still wait or run: there shall be none when a runner has ended."""
        rows = [
            (number, task, row) for number, job in self.scheduler.jobs().items() for task, row in job["tasks"].items()
        ]
        return [f"{number}.{task}" for number, task, row in rows if row["state"] in ("waiting", "running")]

    def log(self, name: str = "x.log") -> Path:
        return self.directory / name


CASES: dict[tuple[str, str], Callable[[Cluster], None]] = {}  # by scheduler and name


def case(*arguments: tuple, kinds: tuple[str, ...] = tuple(PROGRAMS)) -> Callable:
    """Registers a function of a cluster as one case, or as one for each tuple of further arguments."""

    def register(function: Callable) -> Callable:
        for given in arguments or ((),):
            name = "-".join([function.__name__, *map(str, given)])
            CASES.update({(kind, name): lambda on, given=given: function(on, *given) for kind in kinds})
        return function

    return register


def run_case(kind: str, name: str, directory: Path) -> None:
    directory.mkdir()
    on = Cluster(kind, directory)
    CASES[kind, name](on)
    wait_for(lambda: on.left() == [])
    assert not (directory / "q").exists()


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    """The cases that were selected, some at a time: they mostly wait."""
    directory = tmp_path_factory.mktemp("cases")
    items = [item for item in request.session.items if "outcomes" in item.fixturenames]
    chosen = [item.callspec.params for item in items if not item.get_closest_marker("skip")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        pairs = [(one["kind"], one["name"]) for one in chosen]
        yield {pair: pool.submit(run_case, *pair, directory / str(i)) for i, pair in enumerate(pairs)}


@case()
def an_array_with_a_job_that_fails(on):
    status, err = on.call("--max-jobs-run", 2, "JOB=3:5", "x.JOB.log", "sh", "-c", "echo job JOB; exit $((5 - JOB))")
    assert status == 1
    assert "2 of 3 jobs failed: 3 (status 2), 4 (status 1); log: x.JOB.log" in err and "--- x.3.log\n    job 3\n" in err
    assert body(on.log("x.5.log")) == ["job 5"]


@case()
def one_job_with_hostile_arguments(on):
    script = "import sys; print(ascii(sys.argv[1:]))"
    assert on.call("NUMBER=7", "x.NUMBER.log", sys.executable, "-c", script, *HOSTILE, PYTHONUTF8="1")[0] == 0
    assert body(on.log("x.7.log")) == [ascii(HOSTILE)]
    assert not list(on.directory.rglob("canary"))


@case()
def a_refused_submission_is_one_line(on):
    status, err = on.call("x.log", "true", faults={"refuse": "qsub: Job violates queue and/or server resource limits"})
    assert (status, err.count("\n")) == (1, 1) and "x.log: not submitted: " in err and "resource limits" in err


@case(*[(value,) for value in [1, 4, 5]])
def a_busy_scheduler_is_asked_five_times(on, times):
    status, err = on.call("x.log", "echo", "x", faults={"busy": times})
    assert err.count("trying again") == min(times, 4)
    assert (status, len(on.scheduler.jobs())) == ((0, 1) if times < 5 else (1, 0))


@case()
def a_submission_whose_answer_was_lost_is_not_repeated(on):
    status, _ = on.call("x.log", "sh", "-c", "sleep 3; echo x", faults={"unheard": 1})
    assert status == 0 and len(on.scheduler.jobs()) == 1 and body(on.log()) == ["x"]


@case(*[(value,) for value in [0.1, 1, 3]])
def status_files_that_come_late(on, seconds):
    status, err = on.call("JOB=1:2", "x.JOB.log", "sh", "-c", "exit $((JOB - 1))", faults={"early": seconds})
    assert status == 1 and "1 of 2 jobs failed: 2 (status 1)" in err


@case()
def a_status_file_that_never_comes_means_a_lost_job_of_which_no_log_is_known(on):
    status, err = on.call("JOB=1:3", "x.JOB.log", "true", faults={"lose": [2]})
    assert status in (1, 75) and "1 of 3 jobs failed: 2 (" in err and "x.2.log\n    (no log" in err


@case(*[("signal", "signal 9|Signal:9"), ("memory", "memory"), ("time", "time")])
def jobs_that_the_scheduler_kills_are_named(on, how, said):
    status, err = on.call("JOB=1:2", "x.JOB.log", "sleep", "0.3", faults={"kill": {"2": how}})
    assert status == 1 and re.search(rf"1 of 2 jobs failed: 2 \([^)]*({said})", err)


@case()
def a_command_that_is_killed(on):
    assert "1 (status 137)" in on.call("x.log", "sh", "-c", "kill -9 $$")[1]


@case(*[(value,) for value in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]])
def a_runner_that_is_interrupted_leaves_nothing_behind(on, number):
    process = on.start("JOB=1:2", "x.JOB.log", *training(steps=600, state="JOB"), faults={"deaf": 1})
    wait_for(lambda: all(running(on.log(f"x.{job}.log")) for job in (1, 2)))
    process.send_signal(number)
    status, err = end(process)
    assert status == 75 and "run the same command again" in err and on.left() == []
    assert "to step" in body(on.log("x.1.log"))[-1]


@case()
def a_runner_whom_nobody_listens_to_any_more_cancels_all_the_same(on):
    """As in `run.sh 2>&1 | tee log` after Ctrl-C, which ends tee first."""
    process = on.start("x.log", *training(steps=600))
    wait_for(lambda: running(on.log()))
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 75 and on.left() == []
    process.stdout.close()


@case()
def jobs_that_cannot_be_cancelled_are_not_run_beside_themselves(on):
    process = on.start("x.log", *training(steps=600), faults={"deaf": 10**6})
    wait_for(lambda: running(on.log()))
    process.send_signal(signal.SIGTERM)
    status, err = end(process)
    assert status == 75 and "cancel it manually" in err
    status, err = on.call("x.log", "echo", "second", faults={"deaf": 10**6})
    assert (status, len(on.scheduler.jobs())) == (1, 1) and "still runs; cancel it first" in err
    assert on.call("x.log", "echo", "second")[0] == 0
    assert len(on.scheduler.jobs()) == 2 and body(on.log())[-1] == "second"


@case()
def a_submission_is_not_repeated_while_nobody_says_whether_it_got_through(on):
    status, _ = on.call("x.log", "sh", "-c", "sleep 3; echo x", faults={"unheard": 1, "silent": 2})
    assert status == 0 and len(on.scheduler.jobs()) == 1 and body(on.log()) == ["x"]


@case()
def interrupted_while_jobs_wait_or_do_not_listen_or_are_being_submitted(on):
    process = on.start("x.log", "true", faults={"pending": True})
    wait_for(on.left)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 75 and not on.log().exists()
    process = on.start("x.log", *STUBBORN)
    wait_for(lambda: running(on.log()))
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 75 and on.left() == []
    process = on.start("y.log", "sleep", "60", faults={"slow": 1})
    wait_for((on.directory / "q").exists)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 75 and on.left() == []


@case()
def jobs_cancelled_by_somebody_else(on):
    process = on.start("--max-jobs-run", 1, "JOB=1:2", "x.JOB.log", *training(steps=600, state="JOB"))
    wait_for(lambda: running(on.log("x.1.log")))
    on.scheduler.ask_of(1, "delete")
    status, err = end(process)
    assert status == 75 and "2 of 2 jobs failed: 1 (" in err and "2 (cancelled" in err


@case()
def a_scheduler_that_does_not_answer_for_a_while(on):
    process = on.start("x.log", "sh", "-c", "sleep 3; exit 4", faults={"silent": 4})
    status, err = end(process)
    assert status == 1 and "1 (status 4)" in err


@case()
def a_job_that_is_started_again_appends_to_its_log(on):
    process = on.start("--requeue", "true", "x.log", *training(steps=20))
    wait_for(lambda: running(on.log()))
    on.scheduler.ask_of(1, "requeue")
    assert end(process)[0] == 0
    said = body(on.log())
    steps = re.match(r"to step (\d+) ", said[1])[1]
    assert said == ["from step 0", said[1], f"from step {steps}", "to step 20"]


@case(kinds=("pbs",))  # others warn their jobs, see the tests with real ones
def a_job_that_is_warned_before_its_time_limit_is_run_again(on):
    process = on.start("--requeue", "true", "--time", "2s", "x.log", *training(steps=20))
    assert end(process)[0] == 0
    said = body(on.log())
    assert said[0] == "from step 0" and said[-1] == "to step 20" and len(said) >= 4
    assert len(on.scheduler.jobs()) == len(said) // 2


@case()
def a_server_without_history(on):
    status, err = on.call("JOB=1:2", "x.JOB.log", "sh", "-c", "exit $((JOB - 1))", faults={"forgetful": True})
    assert status == 1 and "1 of 2 jobs failed: 2 (status 1)" in err


@case()
def a_killed_runner_is_cleaned_up_after_by_the_next(on):
    process = on.start("x.log", "sleep", "60")
    wait_for(on.log().exists)
    process.kill()
    process.communicate()
    assert on.left()
    status, err = on.call("x.log", "echo", "mine")
    assert status == 0 and "a runner of the same jobs was killed" in err and body(on.log()) == ["mine"]


def elsewhere(on, words, **more):
    """Jobs of another cluster or server: the answer to their submission is lost, their runner is killed."""
    script = ["sh", "-c", "sleep 3; exit $((JOB - 1))"]
    status, err = on.call(*words, "JOB=1:2", "x.JOB.log", *script, faults={"unheard": 1}, **more)
    assert status == 1 and "1 of 2 jobs failed: 2 (status 1)" in err and len(on.scheduler.jobs()) == 1
    process = on.start(*words, "x.log", "sleep", "60", **more)
    wait_for(on.log().exists)
    process.kill()
    process.communicate()
    process = on.start("x.log", *training(steps=600))  # here
    wait_for(lambda: running(on.log()))
    assert on.left() == ["3.1"]
    process.send_signal(signal.SIGTERM)
    status, err = end(process)
    assert status == 75 and "a runner of the same jobs was killed" in err and on.left() == []
    assert [job["where"] == "gpu" for job in on.scheduler.jobs().values()] == [True, True, False]


@case(*[(value,) for value in ["-M cpu,gpu", "--clusters=gpu", ""]], kinds=("slurm",))
def jobs_are_asked_about_and_cancelled_on_their_cluster(on, option):
    where = {} if option else {"SLURM_CLUSTERS": "cpu,gpu"}
    elsewhere(on, conf(on.directory, on.kind, f"command sbatch {option}\n"), **where)


@case(*[(value,) for value in ["-q workq@gpu", "-q @gpu"]], kinds=("pbs",))
def jobs_are_asked_about_and_deleted_at_their_server(on, option):
    elsewhere(on, conf(on.directory, on.kind, f"command qsub {option}\n"))


@case()
def a_scheduler_that_is_not_there_and_an_option_that_its_file_does_not_know(on):
    words = conf(on.directory, on.kind, "command nosuchprogram\n")
    for given, said in ((words, "no program nosuchprogram"), (["--colour", "red"], "--colour 'red'")):
        status, err = on.call(*given, "x.log", "true")
        assert status == 2 and said in err and err.count("\n") == 1, UTILS


# Of Slurm and Grid Engine there are real ones to test with, but of one cluster.
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(*pair, marks=[] if pair[0] == "pbs" or "cluster" in pair[1] else [pytest.mark.recipe])
        for pair in CASES
    ],
)
def test_runner_while_the_scheduler_misbehaves(outcomes, kind, name):
    outcomes[kind, name].result(timeout=300)
    assert (kind, name) in outcomes


def test_clusters_and_servers_are_named_in_every_way_that_submitting_knows(monkeypatch):
    monkeypatch.syspath_prepend(UTILS)
    from jobrunner.pbs import server
    from jobrunner.slurm import clusters

    for words in (["-M", "a,b"], ["-Ma,b"], ["--clusters=a,b"], ["--clusters", "a,b"], ["--cluster=c", "-M", "a,b"]):
        assert clusters(["sbatch", "--cluster-constraint=x", *words, "--mem=1G"]) == "a,b"
    assert clusters(["sbatch", "--cluster-constraint=x"]) == ""
    monkeypatch.setenv("SBATCH_CLUSTERS", "c")
    assert (clusters(["sbatch"]), clusters(["sbatch", "-Ma"])) == ("c", "a")
    for words in (["-q", "workq@b.org"], ["-qworkq@b.org"], ["-q", "@b.org"], ["-q", "workq@a", "-q", "workq@b.org"]):
        assert server(["qsub", *words, "-l", "mem=1gb"]) == ["@b.org"]
    for words in ([], ["-q", "workq", "-M", "me@b.org"], ["-q", "@b.org", "-q", "workq"]):
        assert server(["qsub", *words]) == []


def test_a_warned_job_is_queued_again_by_the_cluster_of_its_node(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(UTILS)
    from jobrunner.slurm import Slurm

    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@ <$SLURM_CLUSTERS>" >"$SAID"\n', encoding="utf-8")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    monkeypatch.setenv("SLURM_CLUSTERS", "gpu")  # by a login shell's files
    assert Slurm().requeue() == 0
    assert (tmp_path / "said").read_text(encoding="utf-8") == "requeue 78 <>\n"
