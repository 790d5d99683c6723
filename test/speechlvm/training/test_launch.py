"""torchrun as `--ngpu` and `--num_nodes` run it, and by hand."""

import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.distributed import DistNetworkError
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from speechlvm.bin import train as program
from speechlvm.experiment.checkpoint import Checkpoints
from speechlvm.training import launch as module
from speechlvm.training.distributed import PeerLost
from speechlvm.utils.errors import ConfigError, Interrupted, UserError
from speechlvm.utils.processes import STOP_SIGNALS

TIMEOUT_SECONDS = 1200
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Undoes what `launch` does to its process, which it is the last to use."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    handlers = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGQUIT)}
    yield
    logging.disable(logging.NOTSET)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def words(tiny_config, make_dump, tmp_path):
    """words(out, *more): of the training program, for a run that does not end by itself."""
    train, valid = make_dump("train", [3000, 2500, 2000, 1500, 2200]), make_dump("valid", [1200, 900, 700], seed=50)
    config = tiny_config(("every_steps: 4", "every_steps: 20"), ("steps: 12", "steps: 100000"))

    def of(out, *more):
        arguments = ["--config", config, "--train", train, "--valid", valid, "--out", tmp_path / out, "--seed", "3"]
        return [str(argument) for argument in [*arguments, *more]]

    return of


@pytest.fixture
def nodes(monkeypatch):
    """nodes(rank, port): this process is one of several nodes, all of them on this machine."""

    def of(rank, port="1"):
        environment = {"SLURM_NODEID": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return {**os.environ, **environment}

    return of


def _start(*command, **options):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "-m", *command], **streams, **options)


def _within(seconds, condition):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def _has_checkpoints(out):
    return len(Checkpoints(out / "checkpoints").steps()) >= 2


@pytest.mark.slow  # two torchruns and two trainings, each a new process that imports torch
def test_a_signal_to_one_node_stops_all_nodes(words, nodes, tmp_path):
    command, port = ("speechlvm.bin.train", *words("$exp", "--num_nodes", "2")), module._rendezvous(1)[2]
    first, second = (_start(*command, env=nodes(rank, port)) for rank in (0, 1))
    try:
        assert _within(TIMEOUT_SECONDS, lambda: _has_checkpoints(tmp_path / "$exp"))
        second.send_signal(signal.SIGUSR2)
        output = "".join(process.communicate(timeout=TIMEOUT_SECONDS)[0] for process in (first, second))
    finally:
        first.kill()
        second.kill()
    assert (first.returncode, second.returncode) == (75, 75)
    step = int(
        re.search(r"error: stopped by SIGUSR2 after step (\d+); run the same command again to resume\n", output)[1]
    )
    assert output.count("error") == 1 and "2 x cpu" in output
    assert Checkpoints(tmp_path / "$exp" / "checkpoints").steps()[-1] == step


@pytest.mark.slow  # a torchrun and two trainings, each a new process that imports torch
def test_nothing_outlives_torchrun(words, tmp_path):
    torchrun = ("torch.distributed.run", "--nproc_per_node", "2", "-m", "speechlvm.bin.train")
    process = _start(*torchrun, *words("exp"))
    assert _within(TIMEOUT_SECONDS, lambda: _has_checkpoints(tmp_path / "exp"))
    process.kill()
    assert "2 x cpu" in process.communicate(timeout=TIMEOUT_SECONDS)[0]
    holder = Path("/proc", re.search(r"process (\d+) ", (tmp_path / "exp" / "lock").read_text())[1])
    assert _within(20, lambda: not holder.exists())


def _ending(monkeypatch, *codes, number=None):
    """torchrun's processes end with these exit codes, after a signal."""

    def main(words):
        if number:
            with subprocess.Popen(["sleep", "60"]) as child:
                monkeypatch.setattr(module, "_children", lambda: [child.pid])
                signal.raise_signal(number)
                assert child.wait() == -number
        raise ChildFailedError("train", {rank: ProcessFailure(rank, 0, code, "") for rank, code in enumerate(codes)})

    monkeypatch.setattr(module.torchrun, "main", main)


@pytest.mark.parametrize(("codes", "status"), [((75, 75), 75), ((PeerLost.exit_status, 2), 2), ((1, -15), 1)])
def test_the_status_is_that_of_the_processes(monkeypatch, codes, status):
    _ending(monkeypatch, *codes)
    assert module.launch([], len(codes), 1) == status


def test_what_no_process_could_report_is_reported(monkeypatch):
    _ending(monkeypatch, PeerLost.exit_status, -9)
    with pytest.raises(
        UserError, match="process 0 lost contact, process 1 was killed by SIGKILL; run the same command"
    ):
        module.launch([], 2, 1)
    _ending(monkeypatch, -15, number=signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped by SIGTERM; run the same command"):
        module.launch([], 1, 1)


def test_a_signal_before_processes_are_started(monkeypatch):
    monkeypatch.setattr(module, "_children", list)
    monkeypatch.setattr(module.torchrun, "main", lambda words: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        module.launch([], 1, 1)


def test_nodes_that_do_not_meet(words, nodes, monkeypatch):
    nodes(1)
    monkeypatch.setattr(module, "RENDEZVOUS_SECONDS", 1)
    with pytest.raises(UserError, match=r"2 nodes did not meet at 127.0.0.1:1 within 1 s; .* --num_nodes 2,") as caught:
        module.launch(words("exp"), 1, 2)
    assert isinstance(caught.value.__cause__, DistNetworkError)


@pytest.mark.parametrize("name", ["SLURM_NODEID", "MASTER_ADDR", "MASTER_PORT"])
def test_nodes_that_do_not_know_where_to_meet(words, nodes, monkeypatch, name):
    nodes(0)
    monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match=rf"{name} (is )?''.*; expected this node's rank"):
        program.main(words("exp", "--num_nodes", "2"))


def test_gpus_that_are_not_there_are_reported_before_anything_starts(words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--ngpu 2: 0 GPUs are visible"):
        program.main(words("exp", "--ngpu", "2"))


@pytest.fixture
def slurm(tmp_path):
    """slurm(script, srun): runs a script where this is srun; returns its status and what scontrol was asked at last."""
    programs, asked = tmp_path / "programs", tmp_path / "asked"
    programs.mkdir()

    def run(script, srun):
        # the answer last: the job script reads its first line only, and then SIGPIPE ends the writer
        scontrol = f'echo "$@" >{shlex.quote(str(asked))}; [ "$1" != show ] || printf "127.0.0.1\\nn2\\n"'
        for name, body in (("srun", srun), ("scontrol", scontrol)):
            (programs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
            (programs / name).chmod(0o755)
        environment = os.environ | {"PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}
        path = tmp_path / "job.sh"
        path.write_text(script)
        return subprocess.run(["bash", path], env=environment, timeout=TIMEOUT_SECONDS).returncode, asked.read_text()

    return run


JOB_SCRIPT = re.search(r"```bash\n(#!.*?\n#SBATCH.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[1]
SETUP = "cd egs/timit && . ./path.sh"


@pytest.mark.slow  # two torchruns and two trainings, each a new process that imports torch
def test_the_job_script_of_the_readme_trains_on_two_nodes(make_dump, tiny_config, tmp_path, slurm):
    given = {
        "conf/wavenet_s1_c96.yaml": tiny_config(),
        "--ngpu 1": "--ngpu 0",
        SETUP: f"cd {shlex.quote(str(tmp_path))}",
    }
    make_dump("pcm16/train", [3000, 2500, 2000, 1500, 2200])
    make_dump("pcm16/valid", [1200, 900, 700], seed=50)
    script = JOB_SCRIPT.replace("MASTER_PORT=29500", f"MASTER_PORT={module._rendezvous(1)[2]}")
    for old, new in given.items():
        assert old in script
        script = script.replace(old, str(new))
    srun = 'SLURM_NODEID=1 "$@" & SLURM_NODEID=0 "$@"; status=$?; wait $! && exit "${status}"'
    assert slurm(script, srun)[0] == 0
    out = tmp_path / "exp/train/wavenet_s1_c96/seed1"
    assert (out / "done.json").exists() and "2 x cpu" in (out / "train.log").read_text()


@pytest.mark.parametrize("status", [0, 1, 75])
def test_the_job_script_of_the_readme_is_requeued_if_it_was_warned(slurm, status):
    asked = "requeue 7" if status == 75 else "show hostnames n[1-2]"
    assert slurm(JOB_SCRIPT.replace(SETUP, ""), f"exit {status}") == (status, f"{asked}\n")
