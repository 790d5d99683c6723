"""The command line of job runners, configuration files, and how cmd.sh chooses; the runner of this machine."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster import UTILS, Bench, body, wait_for

sys.path.insert(0, str(UTILS))  # as it is for the programs there
from jobrunner.attempt import quote
from jobrunner.call import Call, UsageError, parse
from jobrunner.config import Config
from jobrunner.report import Failure, last_lines, summarise

sys.path.remove(str(UTILS))


@pytest.mark.parametrize(
    ("option", "given", "kept"),
    [
        ("--mem", "8G", "8192M"),
        ("--mem", "0.5gb", "512M"),
        ("--time", "2:00:00", "2:00:00"),
        ("--time", "1-02:30:00", "26:30:00"),
        ("--time", "90m", "1:30:00"),
        ("--time", "2d", "48:00:00"),
        ("--num-threads", "08", "8"),
        ("--requeue", "true", "true"),
    ],
)
def test_values_have_one_spelling(option, given, kept):
    call = parse([option, given, "x.log", "true"], "")
    assert call.options == {option[2:].replace("-", "_"): kept}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mem", "8", "x.log", "true"], "--mem '8': expected a size such as 8G"),
        (["--mem", "0G", "x.log", "true"], "--mem '0G': expected a size such as 8G"),
        (["--mem", "8G --wrap=x", "x.log", "true"], "expected a size"),
        (["--time", "10:00", "x.log", "true"], "--time '10:00': expected a time"),  # minutes for some, hours for others
        (["--time", "0s", "x.log", "true"], "--time '0s': "),
        (["--num-nodes", "0", "x.log", "true"], "--num-nodes '0': expected an integer of at least 1"),
        (["--num-threads", "two", "x.log", "true"], "an integer"),
        (["--requeue", "yes", "x.log", "true"], "--requeue 'yes': expected true or false"),
        (["--nonsense", "3", "x.log", "true"], "unknown option '--nonsense'; expected --num-threads, --gpu"),
        (["-V", "x.log", "true"], "unknown option '-V'"),
        (["--gpu"], "--gpu requires a value"),
        (["x.log"], "a log file and a command"),
        (["JOB=0:2", "x.JOB.log", "true"], "jobs are numbered from 1"),
        (["JOB=3:2", "x.JOB.log", "true"], "jobs are numbered from 1"),
        (["JOB=1-2", "x.JOB.log", "true"], "expected NAME=first:last"),
        (["JOB=1:2", "x.log", "true"], "would share the log"),
    ],
)
def test_wrong_usage(words, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        parse(words, "")


SITE = """
# Kaldi's grammar
command sbatch --account="two words"  # and a remark
option mem=* --mem $0
option gpu=0 --partition=cpu
option gpu=* --partition gpu --gres=gpu:$0
option num_nodes=1
default time=2h
option time=* --time=$0
option queue=* -q '$0 $HOME $(touch canary)'
"""


def arguments(tmp_path, text, *words):
    (tmp_path / "site.conf").write_text(text, encoding="utf-8")
    config = Config(tmp_path / "site.conf")
    return [*config.command, *config.arguments(parse([*words, "x.log", "true"], "", further=True))]


def test_options_become_the_schedulers(tmp_path):
    first = ["sbatch", "--account=two words"]
    assert arguments(tmp_path, SITE) == [*first, "--partition=cpu", "--time=2:00:00"]
    assert arguments(tmp_path, f"\ufeff{SITE.strip()}") == arguments(tmp_path, SITE)
    given = ["--gpu", "2", "--mem", "1G", "--time", "5m", "--queue", "a $(touch canary)"]
    assert arguments(tmp_path, SITE, *given) == [
        *first, "--partition", "gpu", "--gres=gpu:2", "--time=0:05:00", "--mem", "1024M",
        "-q", "a $(touch canary) $HOME $(touch canary)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (SITE, ["--num-threads", "4"], "--num-threads '4': {conf} has no line 'option num_threads=* ...' for it"),
        (SITE, ["--requeue", "true"], "--requeue 'true': {conf} has no line"),
        ("option mem=* --mem=$0\n", [], "{conf}: no 'command' line, e.g. 'command sbatch'"),
        ("command sbatch\noption mem\n", [], "{conf}:2: expected 'command ...', 'default name=value' or 'option name="),
        ("command sbatch\ndefault time=long\n", [], "{conf}:2: --time 'long': expected a time such as"),
        ("command sbatch 'x\n", [], "{conf}:1: No closing quotation"),
    ],
)
def test_configurations_that_are_wrong(tmp_path, text, words, message):
    with pytest.raises(UsageError, match=re.escape(message.format(conf=tmp_path / "site.conf"))):
        arguments(tmp_path, text, *words)


def test_a_configuration_that_does_not_exist():
    with pytest.raises(UsageError, match=r"--config nowhere\.conf: No such file"):
        Config(Path("nowhere.conf"))


@pytest.mark.parametrize("runner", ["slurm", "sge", "pbs"])
def test_the_default_configurations_know_every_option(runner):
    config = Config(UTILS / "conf" / f"{runner}.conf")
    words = ["--num-threads", "2", "--gpu", "1", "--mem", "1G", "--time", "1h", "--requeue", "true"]
    words += ["--num-nodes", "2"] if runner == "slurm" else []
    assert len(config.arguments(parse([*words, "x.log", "true"], ""))) >= len(words) // 2
    assert config.command[0] in ("sbatch", "qsub")


@pytest.mark.parametrize("runner", ["local", "slurm", "sge", "pbs"])
def test_help_lists_all_options(runner):
    done = subprocess.run(
        [sys.executable, UTILS / f"{runner}.py", "--help"], capture_output=True, text=True, check=True
    )
    assert f"{runner}.py [options] [JOB=1:N]" in done.stdout
    options = ("--num-threads", "--num-nodes", "--requeue", "--config", "Exit status")
    assert all(option in done.stdout for option in options)
    assert (f"conf/{runner}.conf" in done.stdout) == (runner != "local")


def cmd(tmp_path, backend):
    script = f'cmd_backend={backend}; . "{UTILS}/cmd.sh"; printf "%s|%s" "$train_cmd" "$cuda_cmd"'
    return subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)


def test_cmd_sh_chooses_the_runner_and_a_recipes_own_configuration(tmp_path):
    assert cmd(tmp_path, "").stdout == cmd(tmp_path, "local").stdout == "local.py|local.py"
    assert cmd(tmp_path, "pbs").stdout == "pbs.py|pbs.py"
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "slurm.conf").touch()
    assert cmd(tmp_path, "slurm").stdout == "|".join(["slurm.py --config conf/slurm.conf"] * 2)
    wrong = cmd(tmp_path, "queue")
    assert wrong.returncode == 2
    assert wrong.stderr == 'bash: cmd.sh: unknown cmd_backend "queue"; expected local, slurm, sge or pbs\n'


@pytest.mark.parametrize("word", ["plain", "a b", "it's", "new\nline", "", "é\t", os.fsdecode(b"\xff")])
def test_quoted_words_are_read_back_by_bash(word):
    done = subprocess.run(
        ["bash", "-c", b"printf %s " + os.fsencode(quote(word))], capture_output=True, check=True, timeout=1200
    )
    assert done.stdout == os.fsencode(word) and "\n" not in quote(word)


def test_ends_of_logs(tmp_path):
    log = tmp_path / "x.log"
    assert last_lines(log) == ["(no log: No such file or directory)"]
    log.write_text("only line\n", encoding="utf-8")
    assert last_lines(log) == ["only line"]
    log.write_text("# command: a\nold\n# command: b\n10 %\r100 %\n\n# Ended at x\n", encoding="utf-8")
    assert last_lines(log) == ["100 %"]
    log.write_text(f"# command: a\nold\n# command: b\n{'what was found ' * 50}; do this\n", encoding="utf-8")
    assert last_lines(log)[-1].endswith("; do this")  # to its end
    log.write_text("# command: a\nold\n# command: b\n# Ended at x\n", encoding="utf-8")
    assert last_lines(log) == ["(no output)"]


@pytest.mark.parametrize(
    ("statuses", "expected"), [([], 0), ([75, 75], 75), ([2, 2], 2), ([3], 1), ([75, 1], 1), ([75, 2], 1), ([137], 1)]
)
def test_exit_status(tmp_path, capfd, statuses, expected):
    failures = [Failure(job, status, tmp_path / f"x.{job}.log") for job, status in enumerate(statuses, 1)]
    assert summarise(Call("x.JOB.log", ["true"], "JOB", range(1, 6)), failures) == expected
    assert (f"{len(statuses)} of 5 jobs failed: 1 (status" in capfd.readouterr().err) == (expected != 0)


@pytest.fixture
def local(tmp_path):
    return Bench("local", tmp_path)


def test_one_machine(local):
    status, err = local.call("--num-nodes", 2, "x.log", "true")
    assert status == 2 and "--num-nodes 2: this runner has one machine" in err
    status, err = local.call("--gpu", "1", "x.log", "true", CUDA_VISIBLE_DEVICES="")
    assert status == 2 and "--gpu 1: 0 GPUs are visible" in err and err.count("\n") == 1
    assert list(local.directory.iterdir()) == []
    words = ["--config", "conf/site.conf", "--requeue", "true", "--num-nodes", 1, "--time", "1h"]
    for word in ("first", "second"):  # appends
        assert local.call(*words, "x.log", "echo", word) == (0, "")
    assert local.body() == ["first", "second"]


def test_each_job_has_gpus_of_its_own(local):
    script = "echo $CUDA_VISIBLE_DEVICES; sleep 0.3"
    words = ["--gpu", "2", "JOB=1:3", "x.JOB.log", "sh", "-c", script]
    assert local.call(*words, CUDA_VISIBLE_DEVICES="4,5,6,7") == (0, "")
    devices = [local.body(f"x.{job}.log") for job in (1, 2, 3)]
    assert devices[:2] == [["4,5"], ["6,7"]] and devices[2] in devices[:2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_interruption_reaches_the_children_of_jobs(local, number):
    script = 'trap "sleep 0.3; echo saved; exit 75" TERM; sleep 60 & echo $!; wait'
    process = local.start("x.log", "bash", "-c", script)
    wait_for(lambda: (local.directory / "x.log").exists() and local.body())
    process.stderr.close()  # as in `run.sh 2>&1 | tee log` after Ctrl-C, which ends tee first
    process.send_signal(number)
    assert process.wait(timeout=1200) == 75
    process.stdout.close()
    child, saved = local.body()
    assert saved == "saved"
    wait_for(lambda: not Path("/proc", child, "fd").exists())
    assert "exit status 75" in (local.directory / "x.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGCHLD])
def test_signals_ignored_by_whoever_starts_it_stay_ignored(tmp_path, number):
    """By a script with programs in the background, nohup, some daemons: jobs continue, and can fail."""
    process = subprocess.Popen(
        [sys.executable, UTILS / "local.py", "x.log", "sh", "-c", "echo x; sleep 0.5; exit 2"],
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: (tmp_path / "x.log").exists() and body(tmp_path / "x.log"))
    process.send_signal(number)
    assert process.wait(timeout=1200) == 2 and body(tmp_path / "x.log") == ["x"]


def test_progress_is_shown_on_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, UTILS / "local.py", "x.log", "sh", "-c", "echo step 7; exec sleep 60"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=theirs)
    os.close(theirs)
    shown = b""
    end_of_wait = time.monotonic() + 60
    while b"step 7" not in shown and time.monotonic() < end_of_wait:
        shown += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=1200) == 75
    assert b"\rstep 7\x1b[K" in shown
    os.close(ours)
