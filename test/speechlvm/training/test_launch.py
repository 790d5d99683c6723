"""The agent that starts training processes, and starts them again: real processes, started as users start them."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from speechlvm.bin import train as program
from speechlvm.experiment.checkpoint import Checkpoints
from speechlvm.utils.errors import ConfigError, UserError

TIMEOUT_SECONDS = 180
IMPORTS = "import sys; from speechlvm.bin.cli import run_main; from speechlvm.training import launch; "
TWO_PROCESSES = IMPORTS + "run_main(lambda: launch.launch(sys.argv[1:], 2, 1))"
TWO_NODES = IMPORTS + "launch.MEETING_SECONDS = 1; run_main(lambda: launch.launch(sys.argv[1:], 1, 2))"


@pytest.fixture
def words(tiny_config, make_dump, tmp_path):
    """words(out, *more): of the training program, for a run that takes a while."""
    train, valid = make_dump("train", [3000, 2500, 2000, 1500, 2200]), make_dump("valid", [1200, 900, 700], seed=50)
    config = tiny_config(
        ("every_steps: 4", "every_steps: 20"), ("steps: 12", "steps: 100000"), (", schedule: cosine", "")
    )

    def of(out, *more):
        arguments = ["--config", config, "--train", train, "--valid", valid, "--out", tmp_path / out, "--seed", "3"]
        return [str(argument) for argument in [*arguments, *more]]

    return of


@pytest.fixture
def start(monkeypatch):
    """start(*words of Python's command line): a process, killed at the end if it is still there."""
    started = []
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def of(*command):
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen([sys.executable, *command], **streams))
        return started[-1]

    yield of
    for process in started:
        process.kill()
        process.communicate()


def _wait_for_steps(out, count):
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while len(Checkpoints(out / "checkpoints").steps()) < count and time.monotonic() < deadline:
        time.sleep(0.02)


def _holder(out):
    """The process that writes, by the lock that it holds."""
    return re.search(r"process (\d+) ", (out / "lock").read_text())[1]


def _history(out):
    return [json.loads(line)["nats_per_frame"] for line in (out / "history.jsonl").read_text().splitlines()]


def _weights(out):
    found = Checkpoints(out / "checkpoints")
    return found.load(found.steps()[-1])["model"]


def test_killed_processes_start_again_and_a_signal_stops_all(words, start, train_together, tmp_path):
    process = start("-c", TWO_PROCESSES, *words("killed"))
    _wait_for_steps(tmp_path / "killed", 2)
    subprocess.run(["kill", "-KILL", _holder(tmp_path / "killed")], check=True)
    before = Checkpoints(tmp_path / "killed" / "checkpoints").steps()[-1]
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while Checkpoints(tmp_path / "killed" / "checkpoints").steps()[-1] <= before and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR2)
    output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 75, output
    assert output.count("with SIGKILL") == 1 and "resuming after step" in output and "Traceback" not in output
    stopped = re.search(r"error: stopped by SIGUSR2 after step (\d+); run the same command again to resume", output)
    step = int(stopped[1])
    assert output.count("error: ") == 1
    assert Checkpoints(tmp_path / "killed" / "checkpoints").steps()[-1] == step
    limit = ("--limits.steps", str(step + 20))  # the learning rate is constant
    assert train_together(words("killed", *limit))[0] == train_together(words("whole", *limit))[0] == [0, 0]
    a, b = _weights(tmp_path / "whole"), _weights(tmp_path / "killed")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert _history(tmp_path / "whole") == _history(tmp_path / "killed")


def test_torchrun_by_hand_and_nothing_outlives_it(words, start, tmp_path):
    torchrun = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "speechlvm.bin.train")
    process = start(*torchrun, *words("exp"))
    _wait_for_steps(tmp_path / "exp", 2)
    process.kill()
    assert "2 x cpu" in process.communicate(timeout=TIMEOUT_SECONDS)[0]
    holder = Path(f"/proc/{_holder(tmp_path / 'exp')}")
    deadline = time.monotonic() + 20
    while holder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not holder.exists()


def test_errors_of_the_processes_are_said_once(words, start):
    process = start("-c", TWO_PROCESSES, *words("exp", "--model_conf.hiden", "3"))
    output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 2
    assert output.count("error: ") == 1 and "hiden" in output and len(output.strip().splitlines()) == 1


def test_nodes_that_do_not_meet(words, start, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    process = start("-c", TWO_NODES, *words("exp"))
    output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 1
    assert re.fullmatch(r"error: 2 nodes did not meet at 127.0.0.1:0 within 1 s; .* --num_nodes 2, .*\n", output)


def test_nodes_that_do_not_know_where_to_meet(words, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "")
    with pytest.raises(ConfigError, match=r"MASTER_PORT ''; give the first node's address"):
        program.main(words("exp", "--num_nodes", "2"))


def test_gpus_that_are_not_there_are_said_before_anything_starts(words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--ngpu 2: 0 GPUs are visible"):
        program.main(words("exp", "--ngpu", "2"))
