"""What job runners share: the command line, configuration files, and how cmd.sh chooses."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cluster
import pytest
from cluster import UTILS, wait_for

sys.path.insert(0, str(UTILS))  # as it is for the programs beside it
from jobrunner.attempt import quote
from jobrunner.call import UsageError, parse
from jobrunner.config import Config
from jobrunner.report import last_lines

sys.path.remove(str(UTILS))


@pytest.mark.parametrize(
    ("option", "given", "kept"),
    [
        ("--mem", "8G", "8192M"),
        ("--mem", "0.5gb", "512M"),
        ("--mem", "300M", "300M"),
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
    ("option", "given"),
    [
        ("--mem", "8"),
        ("--mem", "8K"),
        ("--mem", "0G"),
        ("--mem", "8G --wrap=x"),
        ("--time", "10:00"),  # minutes for some, hours for others
        ("--time", "0s"),
        ("--time", "2:60:00"),
        ("--num-nodes", "0"),
        ("--requeue", "yes"),
    ],
)
def test_values_that_are_none(option, given):
    with pytest.raises(UsageError, match=re.escape(f"{option} {given!r}: ")):
        parse([option, given, "x.log", "true"], "")


def arguments(tmp_path, text, *words):
    (tmp_path / "site.conf").write_text(text, encoding="utf-8")
    config = Config(tmp_path / "site.conf")
    return [*config.command, *config.arguments(parse([*words, "x.log", "true"], "", further=True))]


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


def test_options_become_the_schedulers(tmp_path):
    first = ["sbatch", "--account=two words"]
    assert arguments(tmp_path, SITE) == [*first, "--partition=cpu", "--time=2:00:00"]
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
        (SITE, ["--colour", "red"], "--colour 'red': {conf} has no line"),
        ("option mem=* --mem=$0\n", [], "{conf}: no 'command' line, e.g. 'command sbatch'"),
        (
            "command sbatch\noption mem\n",
            [],
            "{conf}:2: expected 'command ...', 'default name=value' or 'option name=value",
        ),
        ("command sbatch\ndefault time=long\n", [], "{conf}:2: --time 'long': expected a time such as"),
        ("command sbatch 'x\n", [], "{conf}:1: No closing quotation"),
        ("command\n", [], "{conf}:1: expected 'command ...'"),
    ],
)
def test_configurations_that_are_wrong(tmp_path, text, words, message):
    with pytest.raises(UsageError, match=re.escape(message.format(conf=tmp_path / "site.conf"))):
        arguments(tmp_path, text, *words)


def test_a_configuration_that_is_not_there():
    with pytest.raises(UsageError, match=r"--config nowhere\.conf: No such file"):
        Config(Path("nowhere.conf"))


@pytest.mark.parametrize("runner", ["slurm", "sge", "pbs"])
def test_the_default_configurations_know_every_option(runner):
    config = Config(UTILS / "conf" / f"{runner}.conf")
    words = ["--num-threads", "2", "--gpu", "1", "--mem", "1G", "--time", "1h", "--requeue", "true"]
    words += ["--num-nodes", "2"] if runner == "slurm" else []
    assert len(config.arguments(parse([*words, "x.log", "true"], ""))) >= len(words) // 2
    assert config.command[0] in ("sbatch", "qsub")


def test_a_machine_is_not_a_cluster(tmp_path):
    status, _, err = cluster.call("local", tmp_path, "--num-nodes", 2, "x.log", "true")
    assert status == 2 and "--num-nodes 2: this runner has one machine" in err
    words = ["--config", "conf/site.conf", "--requeue", "true", "--num-nodes", 1, "--time", "1h", "x.log", "true"]
    assert cluster.call("local", tmp_path, *words)[0] == 0


def test_a_cluster_that_is_not_there(tmp_path):
    status, _, err = cluster.call("slurm", tmp_path, "x.log", "true", PATH="/nowhere")
    assert (status, err) == (2, "slurm.py: no program sbatch on this machine; see cmd_backend in utils/cmd.sh\n")
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize("runner", ["local", "slurm", "sge", "pbs"])
def test_help_says_it_all(runner, tmp_path):
    status, out, _ = cluster.call(runner, tmp_path, "--help")
    assert status == 0
    assert f"{runner}.py [options] [JOB=1:N]" in out
    assert all(option in out for option in ("--num-threads", "--num-nodes", "--requeue", "--config", "Exit status"))


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
        ["bash", "-c", b"printf %s " + os.fsencode(quote(word))], capture_output=True, check=True, timeout=30
    )
    assert done.stdout == os.fsencode(word)


def test_ends_of_logs(tmp_path):
    log = tmp_path / "x.log"
    assert last_lines(log) == ["(no log: No such file or directory)"]
    log.write_text("only line\n", encoding="utf-8")
    assert last_lines(log) == ["only line"]
    log.write_text("# command: a\nold\n# command: b\n10 %\r100 %\n\n# Ended at x\n", encoding="utf-8")
    assert last_lines(log) == ["100 %"]


def test_progress_is_shown_on_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, UTILS / "local.py", "x.log", "sh", "-c", "echo step 7; exec sleep 60"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=theirs)
    os.close(theirs)
    shown = b""
    end = time.monotonic() + 60
    while b"step 7" not in shown and time.monotonic() < end:
        shown += os.read(ours, 4096)
    wait_for((tmp_path / "x.log").exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 75
    assert b"\rstep 7\x1b[K" in shown
    os.close(ours)
