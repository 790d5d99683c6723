"""Scoring from Python, as README shows it."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import speechlvm
from speechlvm.bin import export, train
from speechlvm.data.audio import write_wav
from speechlvm.data.dumps import open_dump
from speechlvm.distributions import build_distribution
from speechlvm.models import build_model
from speechlvm.observation import VectorObservation
from speechlvm.scoring.score import score_dump
from speechlvm.utils.errors import UserError

VRNN = (
    "model: lstm\nmodel_conf: {stack: 16, hidden: 12, layers: 1}",
    "model: vrnn\nmodel_conf: {stack: 16, latent: 3, hidden: 12, state: 12, mlp_layers: 2}",
)


def test_the_package_starts_without_torch():
    code = "import sys, speechlvm; assert 'torch' not in sys.modules; print(speechlvm.load_experiment.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1200)
    assert (done.stdout, done.stderr) == ("load_experiment\n", "")
    with pytest.raises(AttributeError, match="module 'speechlvm' has no attribute 'scores'"):
        _ = speechlvm.scores


def test_arrays_and_files_score_as_their_dump_does(make_dump, tiny_config, tmp_path, monkeypatch):
    out, test = tmp_path / "exp" / "tiny" / "seed1", open_dump(make_dump("test", [900, 1700, 333], seed=90))
    sets = make_dump("train", [3000, 2000]), make_dump("valid", [1200], seed=50)
    words = ["--config", tiny_config(VRNN, ("steps: 12", "steps: 2")), "--train", sets[0], "--valid", sets[1]]
    assert train.main([str(word) for word in [*words, "--out", out]]) == 0
    assert export.main(["--exp", str(out), "--out", str(tmp_path / "exported")]) == 0
    for name in test.records:
        write_wav(tmp_path / f"{name}.wav", test.read(name), 16000)
    experiment = speechlvm.load_experiment(out, coding="mulaw-pcm")
    expected = {each.utterance: each for each in score_dump(experiment.model, experiment.observation, test, samples=2)}
    files = [tmp_path / f"{name}.wav" for name in ("u02", "u00", "u01")]
    moved = speechlvm.load_experiment(tmp_path / "exported", coding="mulaw-pcm")
    found = speechlvm.score(moved, files, samples=2)
    assert found == [expected[path.stem] for path in files]
    assert found[0].bits_per_frame == pytest.approx(-found[0].nats / 333 / np.log(2))
    arrays = speechlvm.score(moved, [test.read("u00"), test.read("u01")])
    monkeypatch.setattr("speechlvm.scoring.score.AUDIO_BATCH_FRAMES", 1000)  # the longer one in chunks
    again = speechlvm.score(moved, [test.read("u00"), str(tmp_path / "u02.wav"), test.read("u01")])
    assert [each.utterance for each in again] == ["0", "u02", "2"]
    assert again[0].nats == pytest.approx(arrays[0].nats, abs=1e-3) and again[2].frames == 1700

    for single in (test.read("u00"), str(files[0]), files[0]):
        with pytest.raises(UserError, match=r"^a single sequence; expected a list of arrays or files"):
            speechlvm.score(moved, single)
    write_wav(tmp_path / "slow.wav", test.read("u00"), 8000)
    for wrong, message in (
        (torch.zeros(9), r"^0: a Tensor; expected a numpy array or the path of a file$"),
        (np.zeros(9), r"^0: float64 \(9,\); expected int16 \(T,\), T at least 1$"),
        (np.zeros((9, 1), np.int16), r"^0: int16 \(9, 1\); expected"),
        (np.zeros(0, np.int16), r"^0: int16 \(0,\); expected"),
        (tmp_path / "slow.wav", "sampling rate 8000 Hz; expected 16000 Hz"),
        (tmp_path / "none.wav", "none.wav: "),
    ):
        with pytest.raises(UserError, match=message):
            speechlvm.score(moved, [wrong])
    with pytest.raises(UserError, match=r"u00.wav: a second sequence named u00"):
        speechlvm.score(moved, [files[1], files[1]])


class Pens:
    """What `load_experiment` gives, of pen points."""

    observation = VectorObservation({"dx": "real", "dy": "real"}, [3.0, -2.0], [10.0, 4.0])
    model = build_model("lstm", {"stack": 2, "hidden": 4}, 2, build_distribution("gaussian", {}, observation)).eval()


def test_vectors_are_arrays():
    rows = np.random.default_rng(0).standard_normal((2, 30, 2)).astype(np.float32)
    one, two = speechlvm.score(Pens, list(rows))
    assert one.frames == 30 and one.nats != two.nats
    with pytest.raises(UserError, match=r"^0: float32 \(30, 3\); expected float32 \(T, 2\)"):
        speechlvm.score(Pens, [np.zeros((30, 3), np.float32)])
    with pytest.raises(UserError, match=r"^a.wav: the model is trained on vectors \(dx real, dy real\); expected"):
        speechlvm.score(Pens, ["a.wav"])
