import os
import pickle
import re
import subprocess
import sys

import pytest
import torch

from speechlvm.experiment import checkpoint as module
from speechlvm.experiment.checkpoint import Checkpoints, load_tensors, load_weights
from speechlvm.utils.errors import UserError


@pytest.fixture
def checkpoints(tmp_path):
    found = Checkpoints(tmp_path / "checkpoints")
    for step in (10, 20, 30):
        found.save(step, {"model": {"w": torch.full((3,), float(step))}, "progress": {"step": step}})
    return found


def test_the_newest_is_loaded(checkpoints):
    assert checkpoints.steps() == [10, 20, 30]
    assert checkpoints.load_latest()["progress"] == {"step": 30}
    assert Checkpoints(checkpoints.directory / "none").load_latest() is None


def test_pruning_keeps_the_newest_two_and_the_best(checkpoints):
    checkpoints.mark_best(10, -1.5)
    checkpoints.save(40, {"model": {}})
    checkpoints.prune()
    assert checkpoints.steps() == [10, 30, 40]
    assert checkpoints.load_best()["model"]["w"].tolist() == [10.0] * 3


def test_the_only_checkpoint_is_valid_at_each_moment_in_which_it_is_written_over_itself(tmp_path, monkeypatch):
    found = Checkpoints(tmp_path / "checkpoints")
    found.save(0, {"model": {}, "progress": {"age": "old"}})
    original, ages = module.write_json, []

    def write_json(path, value):
        ages.append(found.load(0)["progress"]["age"])
        original(path, value)
        ages.append(found.load(0)["progress"]["age"])

    monkeypatch.setattr(module, "write_json", write_json)
    found.save(0, {"model": {}, "progress": {"age": "new"}})
    assert ages == ["old", "old", "new", "new"]


def test_saving_leaves_nothing_of_killed_processes(checkpoints):
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = [checkpoints.directory / name for name in (f".step-00000030.pt.{dead.pid}.tmp", "step-00000010.pt")]
    left[0].write_bytes(b"half")
    checkpoints.path(10).with_suffix(".json").unlink()  # killed in the middle of prune
    checkpoints.save(40, {"model": {}})
    assert not any(path.exists() for path in left)
    assert checkpoints.steps() == [20, 30, 40]


def test_no_best_yet(checkpoints):
    with pytest.raises(UserError, match="no best checkpoint yet; run stage 3"):
        checkpoints.load_best()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_newest_checkpoint_is_passed_over(checkpoints, damage, caplog):
    path = checkpoints.path(30)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-20])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    assert checkpoints.load_latest()["progress"] == {"step": 20}
    assert "step-00000030.pt: does not match its manifest" in caplog.text


def test_all_damaged_is_an_error(checkpoints):
    for step in checkpoints.steps():
        checkpoints.path(step).write_bytes(b"x")
    with pytest.raises(UserError, match="no whole checkpoint is left"):
        checkpoints.load_latest()


def test_without_manifest_there_is_no_checkpoint(checkpoints):
    checkpoints.path(30).with_suffix(".json").unlink()
    assert checkpoints.steps() == [10, 20]


class _Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("form", ["torch", "pickle", "inside"])
def test_a_payload_is_not_run(tmp_path, form):
    canary, path = tmp_path / "canary", tmp_path / "evil.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(_Payload(canary)))
    else:
        payload = _Payload(canary)
        torch.save(payload if form == "torch" else {"format": 1, "model": {"w": payload}}, path)
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        load_tensors(path)
    assert not canary.exists()


def test_other_files_and_formats(tmp_path):
    path = tmp_path / "x.pt"
    path.write_text("hello")
    with pytest.raises(UserError, match="not a checkpoint"):
        load_tensors(path)
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match="no format number"):
        load_tensors(path)
    torch.save({"format": 99, "speechlvm": "0.9.1"}, path)
    with pytest.raises(UserError, match=r"format 99; speechlvm [\d.]+ reads up to 1; needs speechlvm >= 0\.9\.1$"):
        load_tensors(path)
    for writer in ({}, {"speechlvm": "1; rm -r /"}, {"speechlvm": [1]}):
        torch.save({"format": 99, **writer}, path)
        with pytest.raises(UserError, match="needs a newer speechlvm$"):
            load_tensors(path)


def test_weights_of_another_model_are_named_and_nothing_is_loaded():
    module = torch.nn.Linear(3, 2)
    before = module.weight.detach().clone()
    wrong = {"weight": torch.zeros(2, 4), "other": torch.zeros(1), "bias": torch.zeros(2)}
    expected = re.escape("other (model absent, file (1,)), weight (model (2, 3), file (2, 4))")
    with pytest.raises(UserError, match=expected):
        load_weights(module, wrong, "x.pt")
    with pytest.raises(UserError, match="not finite: bias"):
        load_weights(module, {"weight": torch.zeros(2, 3), "bias": torch.tensor([0.0, float("nan")])}, "x.pt")
    assert torch.equal(module.weight, before)


def test_full_disk_leaves_the_previous_checkpoint(checkpoints):
    script = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from speechlvm.utils.errors import UserError\n"
        "from speechlvm.experiment.checkpoint import Checkpoints\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "try:\n"
        "    Checkpoints(Path(sys.argv[1])).save(40, {'model': {'w': torch.zeros(9000)}})\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(checkpoints.directory)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "step-00000040.pt" in result.stdout and "bytes are free" in result.stdout, result.stderr
    assert checkpoints.steps() == [10, 20, 30]
    assert not list(checkpoints.directory.glob(".*.tmp"))
    assert checkpoints.load_latest()["progress"] == {"step": 30}
    checkpoints.save(40, {"model": {}})
    assert checkpoints.steps()[-1] == 40
