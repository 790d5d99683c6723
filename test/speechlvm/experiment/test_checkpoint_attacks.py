"""Hostile checkpoints: nothing in them is called, and the error is one line that names the file."""

import builtins
import contextlib
import copyreg
import functools
import hashlib
import io
import json
import os
import pickle
import tarfile
import zipfile

import pytest
import torch

from speechlvm.experiment.checkpoint import Checkpoints, load_tensors
from speechlvm.utils.errors import UserError


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
        """Pickle insists that what it calls can be called."""


def saved(value, **how):
    stream = io.BytesIO()
    torch.save(value, stream, **how)
    return stream.getvalue()


def content(**change):
    return {"format": 1, "speechlvm": "0.1.0", "model": {"weight": torch.ones(2, 3)}, "optimizer": {}, **change}


def with_pickle(data):
    """A checkpoint with another pickle in its archive."""
    stream, whole = io.BytesIO(), zipfile.ZipFile(io.BytesIO(saved(content())))
    with zipfile.ZipFile(stream, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, data if name.endswith("data.pkl") else whole.read(name))
    return stream.getvalue()


def tar(payload):
    """The format of the first releases of torch."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(payload)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


PAYLOADS = {
    "the whole is a call": lambda c: saved(Call(os.system, f"touch '{c}'")),
    "a weight is a call": lambda c: saved(content(model={"weight": Call(builtins.eval, f"open({c!r}, 'w')")})),
    "a state is set by a call": lambda c: saved(content(optimizer={"state": {0: [Call(State(os.mkdir, c))]}})),
    "torch's format without archive": lambda c: saved(
        content(model=Call(os.mkdir, c)), _use_new_zipfile_serialization=False
    ),
    "torch's tar": lambda c: tar(Call(os.mkdir, c)),
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
        with pytest.raises(UserError, match=f"^{path}: not a checkpoint of this project[^\n]*$"):
            load_tensors(path)
        assert not canary.exists()
        with contextlib.suppress(Exception):
            torch.load(path, weights_only=False)
        assert canary.exists()  # the payload is alive
    finally:
        copyreg.remove_extension("posix", "mkdir", 240)


def test_a_forged_manifest_does_not_open_a_payload(tmp_path):
    found = Checkpoints(tmp_path / "checkpoints")
    found.save(1, content())
    found.mark_best(1, -1.0)
    evil = PAYLOADS["a weight is a call"](str(tmp_path / "canary"))
    found.path(1).write_bytes(evil)
    digest = {"sha256": hashlib.sha256(evil).hexdigest(), "step": 1, "format": 1}
    found.path(1).with_suffix(".json").write_text(json.dumps(digest))
    with pytest.raises(UserError, match=r"step-00000001.pt: not a checkpoint of this project"):
        found.load_best()
    assert not (tmp_path / "canary").exists()


def test_what_unpacks_to_more_than_it_is_stays_packed(tmp_path):
    whole, path = saved(content(model={"weight": torch.zeros(2_000_000)})), tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed, zipfile.ZipFile(io.BytesIO(whole)) as archive:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    assert path.stat().st_size < len(whole) / 100
    with pytest.raises(UserError, match="BadZipFile"):
        load_tensors(path)
