"""Attacks on exported folders: whatever is in them, an error of one line that names the file, and nothing else."""

import hashlib
import json
import re
import struct

import pytest
from safetensors.torch import save

from speechlvm.experiment import config
from speechlvm.experiment.export import read_weights, write_export
from speechlvm.experiment.load import build, load_experiment
from speechlvm.experiment.trained import Experiment, Provenance
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.utils.errors import UserError

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tiny_config, tmp_path):
    """An export that is whole."""
    settings = config.load_config(tiny_config())
    observation = AudioObservation("mulaw", Statistics(0.0, 0.1), rate_hz=16000)
    model = build(settings, observation, 1).eval()
    provenance = Provenance(step=1, epoch=0, seconds=1.0, seed=1, data_hash="0123")
    experiment = Experiment(settings, model, observation, provenance, "tiny", "train")
    write_export(tmp_path / "out", experiment, {"test": {"bits_per_frame": 9.0}}, "card", {})
    return tmp_path / "out"


def refused(folder, *words):
    """The one line with which a folder is refused."""
    with pytest.raises(UserError) as caught:
        load_experiment(folder)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600 and all(word in line for word in words), line
    return line


def forge(folder, name, content):
    """Put other content into a file, and its checksum into the manifest: what no checksum protects from."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_folder_is_whole(folder):
    experiment = load_experiment(folder)
    assert experiment.name == "tiny" and not experiment.model.training


@pytest.mark.parametrize("name", [WEIGHTS, "config.yaml", "observation.json", "results/test.json"])
def test_a_file_cut_anywhere_or_with_a_flipped_bit_is_named(folder, name):
    content = (folder / name).read_bytes()
    places = {len(content) * i // 16 for i in range(16)}
    for place in places:
        (folder / name).write_bytes(content[:place])
        refused(folder, name, "truncated or altered")
        (folder / name).write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        refused(folder, name, "truncated or altered")
    (folder / name).unlink()
    refused(folder, name, "missing")


def test_a_manifest_cut_anywhere_is_refused(folder):
    content = (folder / "manifest.json").read_bytes()
    for place in range(0, len(content) - 2, 7):
        (folder / "manifest.json").write_bytes(content[:place])
        refused(folder, "manifest.json")


MANIFESTS = {
    "a list": ([], "expected a mapping, found list"),
    "text": ("__import__('os').system('x')", "expected a mapping, found str"),
    "no format": ({"format": None}, "no format number"),
    "a format that is true": ({"format": True}, "no format number"),
    "a newer format": ({"format": 2, "speechlvm": "0.7.3", "more": 1}, "needs speechlvm >= 0.7.3"),
    "a newer format of nobody": ({"format": 2, "speechlvm": "$(id)"}, "needs a newer speechlvm"),
    "an unknown key": ({"execute": "x"}, "execute: unknown key"),
    "no provenance": ({"provenance": None}, "provenance"),
    "a seed that is text": (
        {"provenance": {"step": 1, "epoch": 0, "seconds": 1.0, "seed": "1", "data_hash": ""}},
        "seed",
    ),
    "an endless time": (
        {"provenance": {"step": 1, "epoch": 0, "seconds": float("inf"), "seed": 1, "data_hash": ""}},
        "seconds",
    ),
    "a file above": ({"files": {"../outside": "0" * 64}}, "files.../outside"),
    "a file at the root": ({"files": {"/etc/passwd": "0" * 64}}, "/etc/passwd"),
    "a result above": ({"files": {"results/../../x.json": "0" * 64}}, "files"),
    "a checksum that is none": ({"files": {WEIGHTS: "x"}}, f"files.{WEIGHTS}"),
    "no weights": ({"files": {}}, f"does not name {WEIGHTS}"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests(folder, case):
    change, words = MANIFESTS[case]
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest = {**manifest, **change} if isinstance(change, dict) else change
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refused(folder, "manifest.json", words)


def test_a_manifest_nested_without_end_is_refused(folder):
    for text in ("[" * 100_000, '{"a":' * 100_000, "1" * 100_000, "\xff\xfe"):
        (folder / "manifest.json").write_bytes(text.encode("latin-1"))
        refused(folder, "manifest.json")


def tensor(start, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def packed(header, data=bytes(8), size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


ENTRY = json.dumps(tensor(0, 8)).encode()
SAFETENSORS = {
    "empty": b"",
    "shorter than a header": b"abc",
    "header past the end": packed({"a": tensor(0, 8)}, size=10**6),
    "header of 2^63 bytes": packed({"a": tensor(0, 8)}, size=2**63),
    "header of 100 MB": packed(b"{" + b" " * 100_000_001 + b"}"),
    "overlapping tensors": packed({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)),
    "a hole": packed({"a": tensor(0, 8), "b": tensor(12, 20)}, bytes(20)),
    "offsets past the end": packed({"a": tensor(0, 8)}, bytes(4)),
    "more data than tensors": packed({"a": tensor(0, 8)}, bytes(16)),
    "offsets backwards": packed({"a": tensor(8, 0)}),
    "negative offset": packed({"a": tensor(-8, 0)}),
    "unknown type": packed({"a": tensor(0, 8, dtype="OBJECT")}),
    "another shape": packed({"a": tensor(0, 8, shape=(3,))}),
    "negative shape": packed({"a": tensor(0, 8, shape=(-2,))}),
    "shape that overflows": packed({"a": tensor(0, 8, shape=(2**32, 2**32, 2))}),
    "a name twice": packed(b'{"a": ' + ENTRY + b', "a": ' + ENTRY + b"}"),
    "a field twice": packed(b'{"a": {"dtype": "I64", ' + ENTRY[1:] + b"}"),
    "no JSON": packed(b"hello"),
    "a list": packed(b"[]"),
    "metadata that is no text": packed({"__metadata__": {"x": 1}, "a": tensor(0, 8)}),
    "no UTF-8": packed(b'{"\xff": 1}'),
    "nested without end": packed(b'{"a":' + b"[" * 100_000),
    "a pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
    "a checkpoint of torch": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors_attacks(folder, case):
    forge(folder, WEIGHTS, SAFETENSORS[case])
    refused(folder, WEIGHTS, "not a safetensors file", "nothing was loaded")


def change(weights, what):
    name = sorted(weights)[0]
    value = weights[name]
    if what == "missing":
        del weights[name]
    elif what == "extra":
        weights["z.extra"] = value.clone()
    elif what == "shape":
        weights[name] = value.reshape(-1)[:-1].clone()
    elif what == "dtype":
        weights[name] = value.double()
    else:
        value.reshape(-1)[0] = float(what)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", "weights of another model: 1 keys differ, first .* file absent"),
        ("extra", r"weights of another model: 1 keys differ, first z\.extra \(model absent"),
        ("shape", "weights of another model: 1 keys differ"),
        ("dtype", r"weights of another model: 1 keys differ, first .*file \(.*\) float64\)"),
        ("nan", "weights are not finite: "),
        ("inf", "weights are not finite: "),
    ],
)
def test_other_weights(folder, what, words):
    weights = read_weights(folder / WEIGHTS)
    change(weights, what)
    forge(folder, WEIGHTS, save(weights))
    assert re.search(words, refused(folder, WEIGHTS))


OBSERVATIONS = [
    ([], "expected a mapping"),
    ({}, "coding"),
    ({"coding": "mulaw", "mean": 0.0, "std": 0.0, "rate_hz": 16000}, "std"),
    ({"coding": "mulaw", "mean": float("nan"), "std": 0.1, "rate_hz": 16000}, "mean"),
    ({"coding": "mulaw", "mean": "0", "std": 0.1, "rate_hz": 16000}, "mean"),
    ({"coding": "mulaw", "mean": 0.0, "std": 0.1, "rate_hz": -1}, "rate_hz"),
    ({"coding": "mulaw", "mean": 0.0, "std": 0.1, "rate_hz": 16000, "edges": [1]}, "edges: unknown key"),
    ({"coding": "eval", "mean": 0.0, "std": 0.1, "rate_hz": 16000}, "'eval' is unknown"),
    ({"coding": "normalised", "mean": 0.0, "std": 0.1, "rate_hz": 16000}, "its coding is normalised"),
    ({"coding": "normalised", "channels": [["x", "real"]], "mean": [0.0], "std": [0.0], "rate_hz": None}, "deviation"),
    ({"coding": "normalised", "channels": [["x", "code"]], "mean": [0.0], "std": [1.0], "rate_hz": None}, "'code'"),
    ({"coding": "normalised", "channels": [["x"]], "mean": [0.0], "std": [1.0], "rate_hz": None}, "channels.0"),
    (
        {"coding": "normalised", "channels": [["x", "real"]], "mean": [], "std": [1.0], "rate_hz": None},
        "differ in number",
    ),
]


@pytest.mark.parametrize(("value", "words"), OBSERVATIONS)
def test_observations(folder, value, words):
    forge(folder, "observation.json", json.dumps(value).encode())
    refused(folder, words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("model: !!python/object/apply:os.system ['touch CANARY']", "not valid YAML"),
        ("model: !!python/name:os.system", "not valid YAML"),
        ('model: \'__import__("os").system("touch CANARY")\'', "is unknown; expected one of"),
        ("model: speechlvm.models.vrnn", "is unknown; expected one of"),
        ("model: vrnn", "model_conf"),
        ("model: lstm\nmodel: lstm", "given twice"),
        ("model: &a lstm\ncoding: *a", "aliases are not allowed"),
        ("model: lstm\nhook: x", "hook: unknown key"),
    ],
)
def test_configurations(folder, line, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    canary = tmp_path / "canary"
    text = (folder / "config.yaml").read_text()
    assert text.startswith("model: lstm\n")
    forge(folder, "config.yaml", text.replace("model: lstm", line.replace("CANARY", "canary"), 1).encode())
    refused(folder, "config.yaml", words)
    assert not canary.exists()
