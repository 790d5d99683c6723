"""Checkpoints: the newest that is intact, and the best; nothing in a file is called."""

import builtins
import contextlib
import copyreg
import functools
import io
import os
import pickle
import re
import resource
import zipfile

import pytest
import torch

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


def test_full_disk_leaves_the_previous_checkpoint(checkpoints):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"step-00000040\.pt.*bytes are free"):
            checkpoints.save(40, {"model": {"w": torch.zeros(9000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(checkpoints.directory.glob(".*.tmp"))
    assert checkpoints.load_latest()["progress"] == {"step": 30}


def test_damaged_checkpoints_are_skipped(checkpoints, caplog):
    whole = checkpoints.path(30).read_bytes()
    weights = whole.index(torch.full((3,), 30.0).numpy().tobytes())
    for damaged in (b"", whole[:-20], whole[:weights] + b"\1" + whole[weights + 1 :]):
        caplog.clear()
        checkpoints.path(30).write_bytes(damaged)
        assert checkpoints.load_latest()["progress"] == {"step": 20}
        assert "step-00000030.pt: damaged, or not a checkpoint" in caplog.text
    for step in checkpoints.steps():
        checkpoints.path(step).write_bytes(b"x")
    with pytest.raises(UserError, match="no intact checkpoint is left"):
        checkpoints.load_latest()


def test_damage_anywhere_is_noticed_or_changes_nothing(checkpoints, tmp_path):
    whole, path = checkpoints.path(30).read_bytes(), tmp_path / "x.pt"
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place])
        with pytest.raises(UserError, match="^[^\n]*x.pt: damaged, or not a checkpoint of this project[^\n]*$"):
            load_tensors(path)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with contextlib.suppress(UserError):
            content = load_tensors(path)
            assert content["model"]["w"].tolist() == [30.0] * 3 and content["progress"] == {"step": 30}


def test_the_best_is_the_file_that_was_marked(checkpoints):
    with pytest.raises(UserError, match="no best checkpoint yet; run stage 3"):
        checkpoints.load_best()
    checkpoints.mark_best(20, -1.0)
    checkpoints.path(20).write_bytes(checkpoints.path(10).read_bytes())
    with pytest.raises(UserError, match=r"step-00000020\.pt: does not match best\.json"):
        checkpoints.load_best()
    for text in ("[]", '{"format": 1, "step": "../../x"}', "{"):
        (checkpoints.directory / "best.json").write_text(text)
        with pytest.raises(UserError, match=r"checkpoints/best\.json: "):
            checkpoints.load_best()


def test_formats(checkpoints, tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match="no format number"):
        load_tensors(path)
    torch.save({"format": 99, "speechlvm": "0.9.1"}, checkpoints.path(40))
    with pytest.raises(UserError, match=r"format 99; speechlvm [\d.]+ reads up to 1; needs speechlvm >= 0\.9\.1$"):
        checkpoints.load_latest()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, r"another model: .*weight: .*\[2, 4\].*\[2, 3\]"),
        ({"weight": torch.zeros(2, 3)}, 'another model: .*Missing key.*"bias"'),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "x": torch.zeros(1)}, 'another .*Unexpected.*"x"'),
        ({"weight": torch.zeros(2, 3), "bias": torch.tensor([0.0, float("nan")])}, "not finite: bias"),
    ],
)
def test_weights_of_another_model_are_named(weights, message):
    with pytest.raises(UserError, match=rf"^x\.pt: weights .*{message}[^\n]*$"):
        load_weights(torch.nn.Linear(3, 2), weights, "x.pt")


# -- attacks -----------------------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


class State(Call):
    """Pickles as an object whose state is set by a call."""

    def __init__(self, function, *arguments):
        self.reduced = functools.partial, (function,), (function, arguments, {}, None)

    def __call__(self):
        """Pickle requires what it calls to be callable."""


def saved(value, **how):
    stream = io.BytesIO()
    torch.save(value, stream, **how)
    return stream.getvalue()


def with_pickle(data):
    """A checkpoint with another pickle in its archive."""
    stream, whole = io.BytesIO(), zipfile.ZipFile(io.BytesIO(saved({"format": 1})))
    with zipfile.ZipFile(stream, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, data if name.endswith("data.pkl") else whole.read(name))
    return stream.getvalue()


PAYLOADS = {
    "the whole is a call": lambda c: saved(Call(os.system, f"touch '{c}'")),
    "a weight is a call": lambda c: saved({"model": {"weight": Call(builtins.eval, f"open({c!r}, 'w')")}}),
    "a state is set by a call": lambda c: saved({"optimizer": {"state": {0: [Call(State(os.mkdir, c))]}}}),
    "torch's format without archive": lambda c: saved(Call(os.mkdir, c), _use_new_zipfile_serialization=False),
    "a bare pickle": lambda c: pickle.dumps(Call(os.mkdir, c), 0),
    "INST, without GLOBAL and REDUCE": lambda c: with_pickle(b"(S'" + c.encode() + b"'\nios\nmkdir\n."),
    "an extension of copyreg": lambda c: with_pickle(
        b"\x80\x02\x82\xf0X" + len(c).to_bytes(4, "little") + c.encode() + b"\x85R."
    ),
}


@pytest.mark.parametrize("case", PAYLOADS)
def test_nothing_is_called(case, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # what would make torch unsafe again
    copyreg.add_extension("posix", "mkdir", 240)
    path, canary = tmp_path / "x.pt", tmp_path / "canary"
    try:
        path.write_bytes(PAYLOADS[case](str(canary)))
        with pytest.raises(UserError, match=f"^{re.escape(str(path))}: .*not a checkpoint of this project[^\n]*$"):
            load_tensors(path)
        assert not canary.exists()
        with contextlib.suppress(Exception):
            torch.load(path, weights_only=False)
        assert canary.exists()  # the payload is alive
    finally:
        copyreg.remove_extension("posix", "mkdir", 240)
