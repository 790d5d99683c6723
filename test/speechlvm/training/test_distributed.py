"""Several processes that train one model do what one does."""

import json
import re
import signal
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

from speechlvm.bin import train as program
from speechlvm.experiment.checkpoint import Checkpoints
from speechlvm.training.distributed import GRADIENT_TIMEOUT, PeerLost, ProcessGroup

LSTM = "model: lstm\nmodel_conf: {stack: 16, hidden: 12, layers: 1}"
CWVAE = "model: cwvae\nmodel_conf: {stride: 16, levels: 2, width: 8}"
WAVENET = "model: wavenet\nmodel_conf: {stack: 4, channels: 8, layers_per_block: 3, blocks: 2}"


@pytest.fixture
def arguments(make_dump, tiny_config, tmp_path):
    """arguments(model, out, *words): of the training program. Of five utterances, the last is alone in its batch."""
    train = make_dump("train", [3000, 2500, 2000, 1500, 2200])
    valid = make_dump("valid", [1200, 900, 700], seed=50)

    def of(model, out, *words):
        config = tiny_config((LSTM, model), name=f"{out}.yaml")
        return [
            "--config", str(config), "--train", str(train), "--valid", str(valid), "--out", str(tmp_path / out),
            "--seed", "3", *words,
        ]  # fmt: skip

    return of


def _errors(lines):
    return [line for of_process in lines for line in of_process if line.startswith(("error", "Traceback"))]


def _weights(out):
    found = Checkpoints(Path(out) / "checkpoints")
    content = found.load(found.steps()[-1])
    return content["model"], content["optimizer"]["state"], content["generator"]


def _history(out):
    return [json.loads(line)["nats_per_frame"] for line in (Path(out) / "history.jsonl").read_text().splitlines()]


def _same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return all(_same(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("model", "size", "words"),
    [
        pytest.param(LSTM, 2, ("--data.workers", "1", "--limits.steps", "4"), id="lstm, 2 processes that read ahead"),
        pytest.param(WAVENET, 3, ("--limits.steps", "4"), id="wavenet, 3 processes"),
    ],
)
def test_several_do_what_one_does(arguments, train_together, tmp_path, model, size, words):
    assert program.main(arguments(model, "one", *words)) == 0
    statuses, lines = train_together(arguments(model, "several", *words), size)
    assert statuses == [0] * size, lines
    assert _history(tmp_path / "several") == pytest.approx(_history(tmp_path / "one"), rel=1e-6)
    ours, theirs = (_weights(tmp_path / name)[0] for name in ("several", "one"))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert lines[0][-1].endswith(f"finished: {tmp_path / 'several'}")
    assert lines[1:] == [[]] * (size - 1)  # the others are quiet


def test_in_double_precision_they_agree_to_ten_digits(arguments, train_together, tmp_path):
    for size in (1, 2):
        words = arguments(CWVAE, f"of_{size}", "--training.accumulate", "2", "--limits.steps", "6")
        statuses, lines = train_together(words, size, "in_float64")
        assert statuses == [0] * size, lines
    assert _history(tmp_path / "of_2") == pytest.approx(_history(tmp_path / "of_1"), rel=1e-10)
    two, one = (_weights(tmp_path / name)[0] for name in ("of_2", "of_1"))
    assert all(value.dtype == torch.float64 for value in one.values())
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-10)


def test_a_signal_to_one_stops_all_and_the_same_command_goes_on(arguments, train_together, tmp_path):
    whole, stopped = arguments(LSTM, "whole"), arguments(LSTM, "stopped")
    assert train_together(whole)[0] == [0, 0]
    for wrong, after in (("signal_to_the_second", 6), ("signal_while_validating", 8)):
        statuses, lines = train_together(stopped, wrong=wrong)
        assert statuses == [75, 75]
        (error,) = _errors(lines)
        assert f"after step {after}; run the same command" in error and error in lines[0]
        assert Checkpoints(tmp_path / "stopped" / "checkpoints").steps()[-1] == after
    statuses, lines = train_together(stopped)
    assert statuses == [0, 0] and any("resuming after step 8 " in line for line in lines[0])
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "stopped"))
    assert _history(tmp_path / "whole") == _history(tmp_path / "stopped")


def test_it_goes_on_with_another_number_of_processes(arguments, train_together, tmp_path):
    assert program.main(arguments(CWVAE, "one")) == 0
    words = arguments(CWVAE, "changing")
    assert train_together(words, 2, "signal_to_the_second")[0] == [75, 75]
    assert program.main(words) == 0
    assert _history(tmp_path / "changing") == pytest.approx(_history(tmp_path / "one"), rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "words", "status", "message"),
    [
        (None, ["--model_conf.hiden", "3"], 2, ".*hiden: unknown key"),  # on all
        ("nan_on_the_second", [], 1, r"step 7: the loss is nan on u0\d(, u0\d)?; last good .*step-00000004.pt"),
        ("validation_fails_on_the_second", [], 1, "u01: broken"),
        ("disk_full", [], 1, "disk full"),
    ],
)
def test_what_fails_on_one_fails_on_all_and_is_reported_once(
    arguments, train_together, tmp_path, wrong, words, status, message
):
    statuses, lines = train_together(arguments(LSTM, "exp", *words), wrong=wrong)
    assert statuses == [status, status]
    (error,) = _errors(lines)
    assert re.match(f"error: {message}", error)
    assert not (tmp_path / "exp" / "done.json").exists()


def test_others_notice_that_one_is_gone_and_the_same_command_finishes(arguments, train_together, tmp_path):
    statuses, lines = train_together(arguments(LSTM, "exp"), wrong="kill_of_the_second")
    assert statuses == [PeerLost.exit_status, -signal.SIGKILL]
    assert _errors(lines) == []
    assert train_together(arguments(LSTM, "exp"))[0] == [0, 0]
    stamp = (tmp_path / "exp" / "done.json").stat().st_mtime_ns
    assert train_together(arguments(LSTM, "exp")) == ([0, 0], [[], []])  # complete
    assert (tmp_path / "exp" / "done.json").stat().st_mtime_ns == stamp


@pytest.mark.slow  # one waits five seconds for the other, which sleeps for fifteen
def test_a_process_that_stands_still_is_given_up(arguments, train_together):
    statuses, lines = train_together(arguments(LSTM, "exp"), wrong="stall_of_the_second")
    assert statuses == [PeerLost.exit_status] * 2 and _errors(lines) == []


def test_on_gpus_nccl_has_the_gradients_and_nothing_else(monkeypatch):
    groups = []
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend, **_: groups.append(backend))
    monkeypatch.setattr("torch.distributed.new_group", lambda backend, timeout: groups.append((backend, timeout)))
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr("torch.nn.parallel.DistributedDataParallel", lambda *_, **options: _Stop.raise_it(options))
    with FakeTensorMode():
        model = torch.nn.Linear(1, 1, device="cuda")
    with pytest.raises(_Stop):
        ProcessGroup().replicate(model)
    assert groups == ["gloo", ("nccl", GRADIENT_TIMEOUT)]


class _Stop(Exception):
    @classmethod
    def raise_it(cls, options):
        raise cls
