"""Signals that are hardly any: of one sample, or constant, from wav files to scores."""

import json
import math

import numpy as np
import programs
import pytest
import torch

from speechlvm.bin import baseline, score, train
from speechlvm.bin import dump as dump_program
from speechlvm.data.audio import read_audio, write_wav
from speechlvm.data.dumps.dataset import Batch, Segment
from speechlvm.data.kaldi.directory import DataDirectory, write_data_dir
from speechlvm.experiment.load import load_experiment
from speechlvm.models.flac import FLAC
from speechlvm.scoring.score import score_batch
from speechlvm.utils.files import write_json

LSTM = "model: lstm\nmodel_conf: {stack: 16, hidden: 12, layers: 1}"
SYSTEMS = {
    "lstm": LSTM,
    "wavenet": "model: wavenet\nmodel_conf: {stack: 1, channels: 6, layers_per_block: 3, blocks: 2}",
    "wavenet_s16": "model: wavenet\nmodel_conf: {stack: 16, channels: 6, layers_per_block: 3, blocks: 2}",
    "cwvae": "model: cwvae\nmodel_conf: {stride: 64, levels: 2, width: 8}",
}
SILENCE, LOUDEST = np.zeros(700, np.int16), np.full(700, -32768, np.int16)


@pytest.fixture
def dumped(tmp_path):
    """dumped(name, signals, preparation): a dump, made from wav files by the program."""

    def make(name, signals, preparation=None):
        files = {f"s-{number}": tmp_path / f"{name}.{number}.wav" for number in range(len(signals))}
        for path, signal in zip(files.values(), signals, strict=True):
            write_wav(path, np.asarray(signal, np.int16), 16000)
        lengths = {utterance: len(signal) for utterance, signal in zip(files, signals, strict=True)}
        write_data_dir(DataDirectory(dict.fromkeys(files, "s"), wav=files, num_samples=lengths), tmp_path / name)
        if preparation:
            write_json(tmp_path / name / "preparation.json", preparation)
        out = tmp_path / "dump" / name
        done = programs.call(dump_program.main, "--data", tmp_path / name, "--out", out)
        assert done.returncode == 0, done.stderr
        return out

    return make


@pytest.fixture
def trained(tmp_path, tiny_config):
    """trained(system, training, validation): an experiment after three steps."""

    def make(system, training, validation):
        out = tmp_path / "exp/train" / system / "seed1"
        config = tiny_config((LSTM, SYSTEMS[system]), ("steps: 12", "steps: 3"), name=f"{system}.yaml")
        words = ("--config", config, "--train", training, "--valid", validation, "--out", out)
        done = programs.call(train.main, *words)
        assert done.returncode == 0, done.stderr
        return out

    return make


def scored(exp, dump, *options):
    """result.json and the nats of each utterance."""
    out = exp / "_".join(["score", dump.name, *map(str, options)])
    done = programs.call(score.main, "--exp", exp, "--dump", dump, "--out", out, "--double", *options)
    assert done.returncode == 0, done.stderr
    nats = dict(line.split() for line in (out / "utt2nats").read_text().splitlines())
    return json.loads((out / "result.json").read_text()), {name: float(value) for name, value in nats.items()}


@pytest.mark.parametrize("system", SYSTEMS)
def test_16_and_17_one_sample_or_silence(dumped, trained, system):
    training = dumped("train", [[0], [5], [-3], [1000], SILENCE, SILENCE])
    exp = trained(system, training, dumped("valid", [[1], [-32768], SILENCE]))

    test = dumped("test", [[0], [7], [32767], [1, 2, 3], np.arange(100)], {"rejected": 3})
    result, together = scored(exp, test)
    assert (result["frames"], result["utterances"]) == (1 + 1 + 1 + 3 + 100, 5)
    assert result["preparation"] == {"rejected": 3}
    assert result["nats_per_frame"] == math.fsum(together.values()) / 106
    _, alone = scored(exp, test, "--max_frames", 1)
    for utterance, nats in together.items():
        assert math.isfinite(nats) and nats == pytest.approx(alone[utterance], abs=1e-9)

    result, nats = scored(exp, dumped("constant", [SILENCE, LOUDEST, np.full(700, 11, np.int16)]))
    assert result["frames"] == 2100 and all(math.isfinite(value) and value < 0 for value in nats.values())

    if system in ("lstm", "wavenet"):
        assert total_probability(exp) == pytest.approx(1, abs=1e-9)


def total_probability(exp):
    """Of all 65 536 utterances of one sample."""
    experiment = load_experiment(exp, coding="mulaw-pcm")
    values = torch.arange(-32768, 32768, dtype=torch.int16)[:, None]
    segments = tuple(Segment(f"u{value}", 0, 1) for value in range(65536))
    batch = Batch(segments, values, torch.ones(65536, dtype=torch.long))
    scores = score_batch(experiment.model.double(), experiment.observation, batch, 65536)
    return math.fsum(math.exp(one.nats) for one in scores)


def test_17_nothing_but_silence_teaches_nothing(dumped, tmp_path, tiny_config):
    silence = dumped("train", [SILENCE])
    words = ("--config", tiny_config(), "--train", silence, "--valid", silence, "--out", tmp_path / "exp")
    done = programs.call(train.main, *words)
    message = "the training set is constant (one PCM value only); nothing can be normalised or learned"
    assert (done.returncode, done.stderr) == (1, f"error: {message}\n")


@pytest.mark.parametrize("name", ["uniform", "dmol", "flac", "adaptive"])
@pytest.mark.parametrize("coding", ["mulaw", "mulaw-pcm"])
def test_17_baselines_of_silence(dumped, tmp_path, name, coding):
    training, test = dumped("train", [SILENCE]), dumped("test", [SILENCE, LOUDEST, [0]])
    out = tmp_path / "score_test"
    words = ("--name", name, "--train", training, "--dump", test, "--coding", coding, "--out", out)
    done = programs.call(baseline.main, *words)
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    assert result["frames"] == 1401 and math.isfinite(result["bits_per_frame"]) and result["preparation"] == {}


@pytest.mark.parametrize("signal", [SILENCE, LOUDEST, SILENCE[:1], LOUDEST[:17]], ids=["0", "-32768", "one", "few"])
def test_17_flac_gives_constant_signals_back(tmp_path, signal):
    path = tmp_path / "a.flac"
    path.write_bytes(FLAC().encode(signal))
    assert np.array_equal(read_audio(path), signal) and path.stat().st_size == FLAC().bytes(signal)
