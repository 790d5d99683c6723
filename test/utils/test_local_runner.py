"""The local job runner: utils/local.py."""

import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import cluster
import pytest
from cluster import body, wait_for

start, call = partial(cluster.start, "local"), partial(cluster.call, "local")


def test_one_job_per_number(tmp_path):
    assert call(tmp_path, "JOB=2:4", "logs/x.JOB.log", "echo", "job JOB", "in.JOB.scp") == (0, "", "")
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["x.2.log", "x.3.log", "x.4.log"]
    assert body(tmp_path / "logs" / "x.3.log") == ["job 3 in.3.scp"]


def test_any_name_and_options_on_either_side(tmp_path):
    status, _, _ = call(
        tmp_path, "--mem", "8G", "N=1:2", "--time", "2:00:00", "--num_threads", "1", "a b/x.N.log", "echo", "N"
    )
    assert status == 0
    assert body(tmp_path / "a b" / "x.2.log") == ["2"]


def test_log_says_where_when_what_and_how_it_ended(tmp_path):
    call(tmp_path, "x.log", "sh", "-c", "printf unfinished; exit 7")
    lines = (tmp_path / "x.log").read_text(encoding="utf-8").splitlines()
    assert re.match(r"# host \S+, 1 threads, GPU none$", lines[0])
    assert re.match(r"# Started at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d$", lines[1])
    assert lines[2] == "# command: sh -c 'printf unfinished; exit 7'"
    assert lines[3] == "unfinished"
    assert re.match(r"# Ended at \S+ with exit status 7, duration \d+\.\d s$", lines[4])


ARGUMENTS = ["a  b", "$(touch canary)", "`touch canary`", "it's", '"q"', "*", "new\nline", "\\", "", "tab\t", "é", "-x"]


def test_arguments_are_data(tmp_path):
    status, _, err = call(
        tmp_path, "x.log", sys.executable, "-c", "import sys; print(repr(sys.argv[1:]))", *ARGUMENTS, PYTHONUTF8="1"
    )
    assert (status, err) == (0, "")
    assert body(tmp_path / "x.log") == [repr(ARGUMENTS)]
    assert not (tmp_path / "canary").exists()


def test_logged_command_can_be_pasted(tmp_path):
    call(tmp_path, "x.log", "printf", r"%s\0", *ARGUMENTS)
    text = (tmp_path / "x.log").read_text(encoding="utf-8")
    command = text.split("# command: ")[1].split("\n")[0]
    pasted = subprocess.run(["bash", "-c", command], capture_output=True, check=True, timeout=30).stdout
    assert pasted == "".join(a + "\0" for a in ARGUMENTS).encode()


def test_a_further_run_appends(tmp_path):
    for word in ("first", "second"):
        assert call(tmp_path, "x.log", "echo", word)[0] == 0
    assert body(tmp_path / "x.log") == ["first", "second"]


def test_failing_jobs_are_named_with_the_ends_of_three_logs(tmp_path):
    script = 'echo fine; printf "progress\\rreason JOB\\n" >&2; test JOB = 3'
    status, _, err = call(tmp_path, "JOB=1:5", "l/x.JOB.log", "sh", "-c", script)
    assert status == 1
    assert "4 of 5 jobs failed: 1 (status 1), 2 (status 1), 4 (status 1), 5 (status 1); log: l/x.JOB.log" in err
    assert [n for n in range(1, 6) if f"    reason {n}\n" in err] == [1, 2, 4]
    assert [n for n in range(1, 6) if f"l/x.{n}.log" in err] == [1, 2, 4]


def test_a_long_line_that_says_what_to_do_is_shown_to_its_end(tmp_path):
    _, _, err = call(tmp_path, "x.log", "sh", "-c", f"echo '{'what was found ' * 50}; do this'; exit 1")
    assert "; do this\n" in err


def test_the_tail_is_of_the_last_attempt(tmp_path):
    call(tmp_path, "x.log", "sh", "-c", "echo old reason; exit 1")
    _, _, err = call(tmp_path, "x.log", "sh", "-c", "exit 1")
    assert "old reason" not in err
    assert "(no output)" in err


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 0", 0),
        ("exit 75", 75),
        ("exit 2", 2),
        ("exit 3", 1),
        ("test JOB = 1 && exit 75; exit 1", 1),
        ("test JOB = 1 && exit 75; exit 2", 1),
        ("kill -9 $$", 1),
    ],
)
def test_exit_status(tmp_path, script, expected):
    assert call(tmp_path, "JOB=1:2", "x.JOB.log", "sh", "-c", script)[0] == expected


def test_status_of_a_killed_job_is_that_of_a_shell(tmp_path):
    call(tmp_path, "x.log", "sh", "-c", "kill -9 $$")
    assert "exit status 137" in (tmp_path / "x.log").read_text(encoding="utf-8")


def test_command_that_does_not_exist(tmp_path):
    status, _, err = call(tmp_path, "x.log", "no-such-program")
    assert status == 1
    assert "no-such-program: No such file" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.log"], "a log file and a command"),
        ([], "a log file and a command"),
        (["JOB=0:2", "x.JOB.log", "true"], "jobs are numbered from 1"),
        (["JOB=3:2", "x.JOB.log", "true"], "jobs are numbered from 1"),
        (["JOB=1-2", "x.JOB.log", "true"], "expected NAME=first:last"),
        (["JOB=1:2", "x.log", "true"], "would share the log"),
        (["--nonsense", "3", "x.log", "true"], "unknown option '--nonsense'"),
        (["-V", "x.log", "true"], "unknown option '-V'"),
        (["--num-threads", "two", "x.log", "true"], "an integer"),
        (["--max-jobs-run", "0", "x.log", "true"], "integer of at least 1"),
        (["--mem", "much", "x.log", "true"], "a size such as 8G"),
        (["--gpu"], "requires a value"),
        (["--gpu", "1", "x.log", "true"], "0 GPUs are visible"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(tmp_path, arguments, message):
    status, out, err = call(tmp_path, *arguments, CUDA_VISIBLE_DEVICES="")
    assert status == 2
    assert message in err
    assert (err.count("\n"), out) == (1, "")
    assert list(tmp_path.iterdir()) == []


def test_log_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    status, _, err = call(tmp_path, "file/x.log", "true")
    assert status == 1
    assert err.count("\n") == 1
    assert "file" in err


def test_threads(tmp_path):
    script = "echo $OMP_NUM_THREADS $MKL_NUM_THREADS"
    call(tmp_path, "--num-threads", "3", "x.log", "sh", "-c", script)
    assert body(tmp_path / "x.log") == ["3 3"]


def test_each_job_has_gpus_of_its_own(tmp_path):
    script = "echo start; echo $CUDA_VISIBLE_DEVICES; sleep 0.3"
    status, _, _ = call(
        tmp_path, "--gpu", "2", "JOB=1:3", "x.JOB.log", "sh", "-c", script, CUDA_VISIBLE_DEVICES="4,5,6,7"
    )
    assert status == 0
    devices = [body(tmp_path / f"x.{n}.log")[1] for n in (1, 2, 3)]
    assert devices[:2] == ["4,5", "6,7"]
    assert devices[2] in devices[:2]


def test_jobs_without_gpu_see_none(tmp_path):
    call(tmp_path, "x.log", "sh", "-c", 'echo "<$CUDA_VISIBLE_DEVICES>"', CUDA_VISIBLE_DEVICES="4,5")
    assert body(tmp_path / "x.log") == ["<>"]


def test_max_jobs_run(tmp_path):
    script = 'mkdir lock || exit 1; sleep 0.1; rmdir lock; echo "alone"'
    assert call(tmp_path, "--max-jobs-run", "1", "JOB=1:4", "x.JOB.log", "sh", "-c", script)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_interruption_reaches_the_jobs_and_their_children(tmp_path, number):
    # The job's own shell waits for a child; both are told, and the job has time to write its checkpoint.
    script = 'trap "sleep 0.3; echo saved > saved.JOB; exit 75" TERM; sleep 60 & echo $! > child.JOB; wait'
    process = start(tmp_path, "--max-jobs-run", "2", "JOB=1:3", "x.JOB.log", "bash", "-c", script)
    children = [tmp_path / "child.1", tmp_path / "child.2"]
    wait_for(lambda: all(c.exists() and c.read_text(encoding="utf-8").endswith("\n") for c in children))
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 75
    assert (tmp_path / "saved.1").exists() and (tmp_path / "saved.2").exists()
    assert not (tmp_path / "x.3.log").exists()
    assert "run the same command again" in err
    for child in children:
        wait_for(lambda child=child: not Path("/proc", child.read_text(encoding="utf-8").strip(), "fd").exists())
    assert "exit status 75" in (tmp_path / "x.1.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGCHLD])
def test_signals_that_whoever_starts_it_ignores(tmp_path, number):
    """As a script does with what it starts in the background, nohup, and some daemons: jobs go on, and can fail."""
    process = subprocess.Popen(
        [sys.executable, cluster.UTILS / "local.py", "x.log", "sh", "-c", "echo x; sleep 0.5; exit 2"],
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: (tmp_path / "x.log").exists() and body(tmp_path / "x.log"))
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 2 and body(tmp_path / "x.log") == ["x"]
