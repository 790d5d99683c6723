"""Hostile and damaged checkpoints: no canary is ever made, and the error is one line that names the file."""

import builtins
import contextlib
import copyreg
import functools
import hashlib
import importlib
import io
import json
import operator
import os
import pathlib
import pickle
import runpy
import shutil
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from speechlvm.experiment.checkpoint import Checkpoints, check_settings, load_tensors, load_weights
from speechlvm.utils.errors import UserError

TOUCH = "__import__('pathlib').Path({!r}).touch()"


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced

    def __call__(self):
        """Pickle insists that what it calls can be called."""


class State(Call):
    """Pickles as an object whose state is set by a call."""

    def __init__(self, function, *arguments):
        self.reduced = functools.partial, (function,), (function, arguments, {}, None)


class Items:
    """Pickles as a list whose items are appended by what a call gives."""

    def __init__(self, function, *arguments):
        self.call = Call(function, *arguments)

    def __reduce__(self):
        return list, (), None, iter([self.call])


CALLS = {
    "os.system": lambda c: Call(os.system, f"touch '{c}'"),
    "builtins.eval": lambda c: Call(builtins.eval, TOUCH.format(c)),
    "builtins.exec": lambda c: Call(builtins.exec, TOUCH.format(c)),
    "builtins.open": lambda c: Call(builtins.open, c, "w"),
    "builtins.getattr": lambda c: Call(Call(builtins.getattr, pathlib.Path(c), "touch")),
    "builtins.map": lambda c: Call(list, Call(builtins.map, os.mkdir, [c])),
    "io.open": lambda c: Call(io.open, c, "w"),
    "os.mkdir": lambda c: Call(os.mkdir, c),
    "os.open": lambda c: Call(os.open, c, os.O_CREAT),
    "pathlib.Path.touch": lambda c: Call(pathlib.Path.touch, pathlib.Path(c)),
    "shutil.copy": lambda c: Call(shutil.copy, "/etc/hostname", c),
    "subprocess.run": lambda c: Call(subprocess.run, ["touch", c]),
    "subprocess.Popen": lambda c: Call(subprocess.check_output, ["touch", c]),
    "runpy.run_path": lambda c: Call(runpy._run_code, TOUCH.format(c), {}),
    "importlib.import_module": lambda c: Call(Call(builtins.getattr, Call(importlib.import_module, "os"), "mkdir"), c),
    "operator.methodcaller": lambda c: Call(operator.methodcaller("touch"), pathlib.Path(c)),
    "functools.partial": lambda c: Call(functools.partial(os.mkdir, c)),
    "functools.reduce": lambda c: Call(functools.reduce, os.open, [c, os.O_CREAT]),
    "numpy.save": lambda c: Call(np.save, f"{c}", 0),
    "torch.save": lambda c: Call(torch.save, 0, c),
    "torch.load": lambda c: Call(
        functools.partial(torch.load, weights_only=False), io.BytesIO(_saved(Call(os.mkdir, c)))
    ),
    "torch.storage": lambda c: Call(torch.storage._load_from_bytes, _saved(Call(os.mkdir, c))),
    "pickle.loads": lambda c: Call(pickle.loads, pickle.dumps(Call(os.mkdir, c))),
    "state": lambda c: Call(State(os.mkdir, c)),
    "items": lambda c: Items(os.mkdir, c),
}


def _saved(value, **how):
    stream = io.BytesIO()
    torch.save(value, stream, **how)
    return stream.getvalue()


def _content(**change):
    """What a checkpoint holds."""
    return {
        "format": 1,
        "speechlvm": "0.1.0",
        "model": {"weight": torch.ones(2, 3), "bias": torch.zeros(2)},
        "optimizer": {"state": {}, "param_groups": []},
        "generator": torch.get_rng_state(),
        "observation": {"coding": "mulaw", "mean": 0.0, "std": 0.1, "rate_hz": 16000},
        "progress": {"step": 1},
        "frozen": "{}",
        "provenance": {"step": 1, "epoch": 0, "seconds": 1.0, "seed": 1, "data_hash": "0"},
        **change,
    }


def _archive(content, members=()):
    """A checkpoint whose members are replaced, or joined by others."""
    stream, whole = io.BytesIO(), zipfile.ZipFile(io.BytesIO(content))
    with zipfile.ZipFile(stream, "w") as archive:
        replaced = dict(members)
        for name in whole.namelist():
            archive.writestr(name, replaced.pop(name, whole.read(name)))
        for name, data in replaced.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _tar(payload):
    """The tar format of the first releases of torch."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors", "../canary"):
            data = pickle.dumps(payload)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _script(canary):
    """A TorchScript archive, whose code runs when a method is called."""
    module = torch.jit.script(torch.nn.Linear(1, 1))
    stream = io.BytesIO()
    torch.jit.save(module, stream, _extra_files={"canary": canary})
    return stream.getvalue()


def _npz(payload):
    stream = io.BytesIO()
    np.savez(stream, model=np.array([payload], dtype=object))
    return stream.getvalue()


def _opcodes(canary):
    """INST, which needs neither GLOBAL nor REDUCE."""
    return b"(S'" + canary.encode() + b"'\nios\nmkdir\n."


FORMS = {
    "as the whole": lambda p: _saved(p),
    "among weights": lambda p: _saved(_content(model={"weight": p, "bias": torch.zeros(2)})),
    "deep in the optimiser": lambda p: _saved(
        _content(optimizer={"state": {0: [(p, {"x": [p]})]}, "param_groups": []})
    ),
    "as a name": lambda p: _saved({**_content(), (p,): 1}),
    "as the format": lambda p: _saved(_content(format=p)),
    "as the progress": lambda p: _saved(_content(progress={"history": [p]})),
    "without archive": lambda p: _saved(_content(model={"weight": p}), _use_new_zipfile_serialization=False),
    "as tar": _tar,
    "as npz": _npz,
    "as a pickle, protocol 0": lambda p: pickle.dumps(p, 0),
    "as a pickle, protocol 2": lambda p: pickle.dumps({"format": 1, "model": p}, 2),
    "as a pickle, protocol 5": lambda p: pickle.dumps([p], 5),
}


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


def refused(path, content, canary):
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_tensors(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and len(line) < 400, line
    assert not canary.exists() and not list(canary.parent.glob("canary*"))
    return line


@pytest.mark.parametrize("call", CALLS)
def test_the_payloads_are_alive(call, tmp_path):
    """Read by an unsafe reader each makes its canary; else the tests below would show nothing."""
    (tmp_path / "there").mkdir()
    pickle.loads(pickle.dumps(CALLS[call](str(tmp_path / "there" / "canary"))))  # noqa: S301
    assert list((tmp_path / "there").glob("canary*"))


@pytest.mark.parametrize("call", CALLS)
def test_no_call_is_made(call, tmp_path, canary):
    for form in ("as the whole", "among weights", "without archive"):
        refused(tmp_path / "x.pt", FORMS[form](CALLS[call](str(canary))), canary)


@pytest.mark.parametrize("form", FORMS)
def test_wherever_it_stands(form, tmp_path, canary):
    for call in ("os.system", "builtins.eval", "state"):
        refused(tmp_path / "x.pt", FORMS[form](CALLS[call](str(canary))), canary)


def test_no_environment_makes_it_unsafe(tmp_path, canary, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    refused(tmp_path / "x.pt", FORMS["among weights"](CALLS["os.mkdir"](str(canary))), canary)


def test_other_archives(tmp_path, canary):
    path, whole = tmp_path / "x.pt", _saved(_content())
    path.write_bytes(whole)
    assert load_tensors(path)["model"]["weight"].tolist() == [[1.0] * 3] * 2  # what is attacked below is whole
    payload = pickle.dumps(CALLS["os.mkdir"](str(canary)), 2)
    (pickled,) = (name for name in zipfile.ZipFile(io.BytesIO(whole)).namelist() if name.endswith("data.pkl"))
    refused(path, _archive(whole, [(pickled, payload)]), canary)
    refused(path, _archive(whole, [(pickled, _opcodes(str(canary)))]), canary)
    refused(path, _script(str(canary)), canary)
    refused(path, b"PK\x05\x06" + bytes(18), canary)  # an archive of nothing
    for name in ("../canary", str(canary), "archive/../../canary"):  # nothing is ever unpacked
        path.write_bytes(_archive(whole, [(name, b"x")]))
        with contextlib.suppress(UserError):
            assert load_tensors(path)["format"] == 1
        assert not canary.exists() and not (tmp_path.parent / "canary").exists()


def test_extensions_of_the_registry_are_not_called(tmp_path, canary):
    copyreg.add_extension("posix", "mkdir", 240)
    try:
        body = b"\x80\x02\x82\xf0X" + len(str(canary)).to_bytes(4, "little") + str(canary).encode() + b"\x85R."
        whole = _saved(_content())
        (pickled,) = (name for name in zipfile.ZipFile(io.BytesIO(whole)).namelist() if name.endswith("data.pkl"))
        refused(tmp_path / "x.pt", _archive(whole, [(pickled, body)]), canary)
        refused(tmp_path / "x.pt", body, canary)
    finally:
        copyreg.remove_extension("posix", "mkdir", 240)


def test_what_unpacks_to_more_than_it_is_stays_packed(tmp_path, canary):
    whole, stream = _saved(_content(model={"weight": torch.zeros(2_000_000)})), io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed, zipfile.ZipFile(io.BytesIO(whole)) as archive:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    assert len(stream.getvalue()) < len(whole) / 100
    assert "BadZipFile" in refused(tmp_path / "x.pt", stream.getvalue(), canary)


def test_cut_at_64_points(tmp_path, canary):
    whole = _saved(_content())
    for number in range(64):
        refused(tmp_path / "x.pt", whole[: len(whole) * number // 64], canary)


def test_flipped_bits_are_noticed_by_the_checksum_and_harm_nobody_without(tmp_path, canary):
    found = Checkpoints(tmp_path / "checkpoints")
    found.save(1, _content())
    found.save(2, _content())
    whole, path = found.path(2).read_bytes(), tmp_path / "x.pt"
    generator = np.random.default_rng(0)
    for place in generator.integers(0, len(whole), 64):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(generator.integers(8))
        found.path(2).write_bytes(flipped)
        with pytest.raises(UserError, match="step-00000002.pt: does not match its manifest"):
            found.load(2)
        path.write_bytes(flipped)
        try:  # as if the checksum had been forged
            content = load_tensors(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        else:
            assert content["format"] == 1
    assert found.load_latest()["progress"] == {"step": 1}
    assert not canary.exists()


BEST = ["[]", "1", '{"step": "../../x"}', '{"step": null}', '{"step": -1}', '{"step": 1e99}', "{}", "[" * 100_000]


@pytest.mark.parametrize("text", BEST)
def test_marks_of_the_best(tmp_path, text):
    found = Checkpoints(tmp_path / "checkpoints")
    found.save(1, _content())
    (found.directory / "best.json").write_text(text)
    with pytest.raises(UserError, match=r"checkpoints/(best\.json|step-)"):
        found.load_best()


MANIFESTS = ["[]", "null", '"x"', "{}", '{"sha256": 1}', '{"sha256": ["x"]}', "[" * 100_000, "{"]


@pytest.mark.parametrize("text", MANIFESTS)
def test_manifests(tmp_path, text, caplog):
    found = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        found.save(step, _content(progress={"step": step}))
    found.path(2).with_suffix(".json").write_text(text)
    assert found.load_latest()["progress"] == {"step": 1}
    assert "step-00000002" in caplog.text
    with pytest.raises(UserError, match="step-00000002"):
        found.load(2)


def test_a_forged_manifest_does_not_open_a_payload(tmp_path, canary):
    found = Checkpoints(tmp_path / "checkpoints")
    found.save(1, _content())
    found.mark_best(1, -1.0)
    evil = FORMS["among weights"](CALLS["os.system"](str(canary)))
    found.path(1).write_bytes(evil)
    digest = {"sha256": hashlib.sha256(evil).hexdigest(), "step": 1, "format": 1}
    found.path(1).with_suffix(".json").write_text(json.dumps(digest))
    with pytest.raises(UserError, match=r"step-00000001.pt: not a checkpoint of this project"):
        found.load_best()
    assert not canary.exists()


def test_what_a_newer_version_wrote_is_not_passed_over(tmp_path):
    found = Checkpoints(tmp_path / "checkpoints")
    found.save(1, _content())
    found.save(2, _content())
    path = found.path(2).with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2, "speechlvm": "0.4.0", "shards": 3}))
    with pytest.raises(UserError, match=r"step-00000002\.json: format 2; .* needs speechlvm >= 0\.4\.0$"):
        found.load_latest()


class _Frozen:
    """Stands for a configuration."""

    @staticmethod
    def frozen():
        return {}


PARTS = {
    **{
        f"no {key}": {key: None} for key in ("model", "optimizer", "generator", "observation", "progress", "provenance")
    },
    "weights in a list": {"model": [torch.zeros(1)]},
    "settings that are no text": {"frozen": {}},
}


@pytest.mark.parametrize("case", PARTS)
def test_parts_that_are_missing_are_named(case):
    (key,) = PARTS[case]
    with pytest.raises(UserError, match=rf"^x\.pt: a checkpoint has \w+ as '{key}', expected"):
        check_settings(_content(**PARTS[case]), _Frozen, "x.pt")
    content = _content()
    del content[key]
    with pytest.raises(UserError, match=f"has nothing as '{key}'"):
        check_settings(content, _Frozen, "x.pt")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, "1" * 10_000])
def test_settings_that_cannot_be_read(text):
    with pytest.raises(UserError, match=r"^x\.pt: .*(settings are not readable|of another experiment)"):
        check_settings(_content(frozen=text), _Frozen, "x.pt")
    check_settings(_content(), _Frozen, "x.pt")


ODD = {
    "double": (torch.zeros(2, 3, dtype=torch.float64), r"\(2, 3\) float64"),
    "codes": (torch.zeros(2, 3, dtype=torch.int8), r"\(2, 3\) int8"),
    "sparse": (torch.zeros(2, 3).to_sparse(), "no plain tensor"),
    "without storage": (torch.zeros(2, 3, device="meta"), "no plain tensor"),
    "of one number": (torch.zeros(1), r"\(1,\)"),
    "transposed": (torch.zeros(3, 2), r"\(3, 2\)"),
    "text": ("__import__", "no plain tensor"),
    "a list": ([[0.0] * 3] * 2, "no plain tensor"),
    "nothing": (None, "absent"),
}


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("case", ODD)
def test_odd_weights_are_refused_and_nothing_is_loaded(case, tmp_path):
    value, words = ODD[case]
    torch.save(_content(model={"weight": value, "bias": torch.ones(2)}), tmp_path / "x.pt")
    weights, module = load_tensors(tmp_path / "x.pt")["model"], torch.nn.Linear(3, 2)
    before = {key: each.clone() for key, each in module.state_dict().items()}
    with pytest.raises(UserError, match=rf"weight \(model \(2, 3\), file {words}\)"):
        load_weights(module, weights, "x.pt")
    for weights in ([], {1: torch.zeros(1)}):
        with pytest.raises(UserError, match=r"^x\.pt: weights are not named; nothing was loaded$"):
            load_weights(module, weights, "x.pt")
    assert all(torch.equal(each, before[key]) for key, each in module.state_dict().items())


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """Where the first test puts what the others copy."""
    return tmp_path_factory.mktemp("interrupted")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer", {}),
        ("optimizer", {"state": {}, "param_groups": []}),
        ("optimizer", {"state": [1], "param_groups": 3}),
        ("generator", torch.zeros(3)),
        ("generator", torch.zeros(1, dtype=torch.uint8)),
        ("progress", {}),
        ("progress", {"step": 1, "execute": "x", "best_step": 4, "history": []}),
        ("progress", {"best_step": [], "history": None}),
        ("provenance", {"seed": 1}),
        ("provenance", {"step": 4, "epoch": 0, "seconds": 1.0, "seed": 2, "data_hash": "0"}),
    ],
)
def test_a_training_does_not_go_on_from_what_does_not_fit(made_once, make_dump, tiny_config, tmp_path, key, value):
    from speechlvm.bin import train

    out, settings = tmp_path / "exp", tiny_config(("steps: 12", "steps: 4"))
    dumps = [make_dump(name, [1200], seed=50) for name in ("train", "valid")]
    words = ["--config", settings, "--train", dumps[0], "--valid", dumps[1], "--out", out, "--limits.steps"]
    if not any(made_once.iterdir()):
        train.main([str(word) for word in (*words, 4)])
        shutil.copytree(out, made_once, dirs_exist_ok=True)
    shutil.copytree(made_once, out, dirs_exist_ok=True)
    found = Checkpoints(out / "checkpoints")
    content = {k: v for k, v in found.load(4).items() if k not in ("format", "speechlvm")}
    found.save(4, {**content, key: value})
    with pytest.raises(UserError, match=r"checkpoints: .*(of this training|missing|trained with)") as caught:
        train.main([str(word) for word in (*words, 6)])
    assert "\n" not in str(caught.value)
    assert found.steps()[-1] == 4
