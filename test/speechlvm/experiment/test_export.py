"""Exported folders that are damaged, forged or of another version: one line that names the file, and nothing else."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save

from speechlvm.experiment import config
from speechlvm.experiment.export import name_of, write_export
from speechlvm.experiment.load import build, load_experiment
from speechlvm.experiment.trained import Experiment, Provenance
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.utils.errors import UserError

WEIGHTS = "model.safetensors"


@pytest.mark.parametrize(
    ("directory", "name"), [("exp/train/mine/seed12", "mine"), ("/tmp/mine", "mine"), ("x/seedy", "seedy")]
)
def test_an_experiment_is_named_after_its_directory(directory, name):
    assert name_of(directory) == name


@pytest.fixture
def folder(tiny_config, tmp_path):
    """An export that is whole."""
    settings = config.load_config(tiny_config())
    observation = AudioObservation("mulaw", Statistics(0.0, 0.1), rate_hz=16000)
    model = build(settings, observation, 1).eval()
    provenance = Provenance(step=1, epoch=0, seconds=1.0, seed=1, data_hash="0123")
    experiment = Experiment(settings, model, observation, provenance, "tiny", "train")
    write_export(tmp_path / "out", experiment, {"test": {"bits_per_frame": 9.0}}, "card", {})
    experiment = load_experiment(tmp_path / "out")
    assert experiment.name == "tiny" and not experiment.model.training
    return tmp_path / "out"


def refused(folder, *words):
    """Loading the folder fails with one line."""
    with pytest.raises(UserError) as caught:
        load_experiment(folder)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600 and all(word in line for word in words), line


def forge(folder, name, content):
    """Put other content into a file, and its checksum into the manifest: what no checksum protects from."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", [WEIGHTS, "config.yaml", "observation.json", "results/test.json"])
def test_a_damaged_file_is_named(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    refused(folder, name, "truncated or altered")
    (folder / name).unlink()
    refused(folder, name, "missing")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": None}, "no format number"),
        ({"format": 2, "speechlvm": "0.7.3", "more": 1}, "needs speechlvm >= 0.7.3"),
        ({"execute": "x"}, "execute: unknown key"),
        ({"provenance": None}, "provenance"),
        ({"files": {"results/../../x.json": "0" * 64}}, "files.results/../../x.json"),
    ],
)
def test_manifests(folder, change, words):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refused(folder, "manifest.json", words)
    path.write_text("[1")
    refused(folder, "manifest.json")


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R."])
def test_weights_that_are_no_safetensors(folder, content):
    forge(folder, WEIGHTS, content)
    refused(folder, WEIGHTS, "not a safetensors file", "nothing was loaded")


def test_weights_of_another_model(folder):
    weights = load_file(folder / WEIGHTS)
    forge(folder, WEIGHTS, save({**weights, "z.extra": torch.zeros(1)}))
    refused(folder, WEIGHTS, "weights of another model", "z.extra")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "observation.json"),
        ({"coding": "mulaw", "mean": float("nan"), "std": 0.1, "rate_hz": 16000}, "mean"),
        ({"coding": "normalised", "mean": 0.0, "std": 0.1, "rate_hz": 16000}, "its coding is normalised"),
        (
            {"coding": "normalised", "channels": [["x", "real"]], "mean": [0.0], "std": [0.0], "rate_hz": None},
            "channel 'x'",
        ),
    ],
)
def test_observations(folder, value, words):
    forge(folder, "observation.json", json.dumps(value).encode())
    refused(folder, words)


def test_configurations(folder, tmp_path):
    text, canary = (folder / "config.yaml").read_text(), tmp_path / "canary"
    forge(folder, "config.yaml", f"model: !!python/object/apply:os.mkdir ['{canary}']\n{text}".encode())
    refused(folder, "config.yaml", "tags are not allowed")
    assert not canary.exists()
