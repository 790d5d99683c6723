"""Stages 2 to 5 on sequences of vectors, by the same programs as for audio."""

import json
import math
import shutil

import numpy as np
import pytest
import yaml

from speechlvm.bin import dump, export, sample, score, train
from speechlvm.data.dumps import open_dump
from speechlvm.data.kaldi.directory import DataDirectory, write_data_dir
from speechlvm.data.kaldi.matrices import write_vectors
from speechlvm.experiment.load import load_experiment
from speechlvm.scoring import score as scoring
from speechlvm.utils.errors import UserError

CHANNELS = {"contact": "binary", "x": "real", "y": "real"}


def circles(frames: int, seed: int) -> np.ndarray:
    """Points on a circle with noise, far from the origin; contact in its upper half."""
    generator = np.random.default_rng(seed)
    angle = 0.2 * np.arange(frames) + generator.uniform(0, 6)
    x, y = 500 + 30 * np.cos(angle), -20 + 30 * np.sin(angle)
    noise = generator.normal(0, 1, (frames, 2))
    return np.column_stack([np.sin(angle) > 0, x + noise[:, 0], y + noise[:, 1]]).astype(np.float32)


def run(program, *arguments):
    return program.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module", params=["lstm", "vrnn"])
def trained(request, tmp_path_factory):
    """(experiment, dump of the test set) after 60 steps."""
    home = tmp_path_factory.mktemp("vectors")
    for name, count in (("train", 12), ("valid", 2), ("test", 3)):
        items = {f"{name}{i}": circles(40 + 7 * i, 100 * len(name) + i) for i in range(count)}
        feats, num_frames = write_vectors(home / "vectors", name, items.items())
        data = DataDirectory(
            dict.fromkeys(items, name), feats=feats, num_frames=num_frames, channels=CHANNELS, rate_hz=25.0
        )
        write_data_dir(data, home / "data" / name)
        for extra in (["--job", 1], ["--job", 2], ["--merge"]):
            run(dump, "--kind", "vectors", "--data", home / "data" / name, "--out", home / name, "--nj", 2, *extra)
    sizes = {"lstm": {"hidden": 16}, "vrnn": {"hidden": 16, "state": 16, "latent": 3, "mlp_layers": 2}}
    config = {
        "model": request.param,
        "model_conf": {"stack": 2, **sizes[request.param]},
        "coding": "normalised",
        "distribution": "gaussian",
        "data": {"batch_frames": 400},
        "training": {"learning_rate": {"peak": 0.01}},
        "validation": {"every_steps": 30},
        "limits": {"steps": 60},
    }
    (home / "tiny.yaml").write_text(yaml.safe_dump(config))
    out = home / "exp/train/tiny/seed1"
    run(train, "--config", home / "tiny.yaml", "--train", home / "train", "--valid", home / "valid", "--out", out)
    return out, home / "test"


def test_training_learns_and_scores_do_not_depend_on_chunks(trained):
    out, test = trained
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert history[0]["bits_per_frame"] is None
    assert history[-1]["nats_per_frame"] > history[0]["nats_per_frame"] + 0.5
    results = []
    for name, extra in (("a", []), ("b", ["--chunk_frames", 6, "--max_frames", 50])):
        run(score, "--exp", out, "--dump", test, "--out", out / name, "--double", *extra)
        results.append(json.loads((out / name / "result.json").read_text()))
    assert results[0]["unit"] == "density" and results[0]["bits_per_frame"] is None
    assert results[0]["frames"] == 40 + 47 + 54
    assert results[0]["nats_per_utterance"] == pytest.approx(results[1]["nats_per_utterance"], rel=1e-9)
    assert math.isfinite(results[0]["nats_per_utterance"])


def test_samples_are_in_the_units_of_the_data(trained):
    out, test = trained
    run(sample, "--exp", out, "--dump", test, "--out", out / "samples", "--frames", 30, "--prefix_seconds", 0.8)
    index = json.loads((out / "samples/samples.json").read_text())
    kinds = {entry["kind"] for entry in index}
    first = json.loads((out / "history.jsonl").read_text().splitlines()[0])
    latents = "kl_z1" in first["terms_nats_per_frame"]
    of_latents = {"frames", "reconstruction", "resynthesis", "interpolation"}
    assert kinds == {"prior", "temperature", "continuation", *(of_latents if latents else ())}
    for entry in index:
        values = np.load(out / "samples" / f"{entry['name']}.npy", allow_pickle=False)
        assert values.dtype == np.float32 and values.shape[1] == 3
        assert len(values) == (50 if entry["kind"] == "continuation" else 30)
        assert 400 < values[:, 1].mean() < 600 and -120 < values[:, 2].mean() < 80
        if entry["kind"] == "continuation":
            assert entry["marks"] == [20]
        assert (out / "samples" / entry["picture"]).stat().st_size > 5000


def test_lengths_in_seconds_need_a_rate(trained, tmp_path):
    out, test = trained
    info = json.loads((test / "info.json").read_text())
    for path in test.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "info.json").write_text(json.dumps({**info, "rate_hz": None}))
    with pytest.raises(UserError, match="its frames have no rate; give --frames"):
        run(sample, "--exp", out, "--dump", tmp_path, "--out", tmp_path / "samples")


def test_a_dump_of_another_kind_is_refused(trained, tmp_path):
    out, _ = trained
    data = out.parents[3] / "data/test"
    with pytest.raises(UserError, match="holds vectors; cannot make a dump of kind pcm16"):
        run(dump, "--kind", "pcm16", "--data", data, "--out", tmp_path / "dump")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"channels": [["x", "real"], ["contact", "binary"], ["y", "real"]]}, r"x real, contact binary, y real\); the"),
        ({"channels": [["contact", "real"], ["x", "real"], ["y", "real"]]}, r"contact real, x real, y real\); the"),
        ({"rate_hz": 50.0}, "has 50.0 frames per second; the model is trained on 25.0"),
    ],
)
def test_dumps_of_other_channels_or_another_rate_are_refused(trained, tmp_path, change, found):
    out, test = trained
    other = tmp_path / "other"
    shutil.copytree(test, other)
    info = json.loads((test / "info.json").read_text())
    (other / "info.json").write_text(json.dumps({**info, **change}))
    config = ["--config", out.parents[3] / "tiny.yaml", "--train", out.parents[3] / "train"]
    for program, arguments in (
        (train, [*config, "--valid", other]),
        (score, ["--exp", out, "--dump", other]),
        (sample, ["--exp", out, "--dump", other]),
    ):
        with pytest.raises(UserError, match=f"^{other}: .*{found}"):
            run(program, *arguments, "--out", tmp_path / "out")
        assert not (tmp_path / "out/done.json").exists() and not (tmp_path / "out/config.yaml").exists()


def test_batches_of_vectors_are_bounded_and_change_nothing(trained, tmp_path, monkeypatch):
    out, test = trained
    experiment, data = load_experiment(out), open_dump(test)
    sizes = []
    whole = scoring.score_batch
    monkeypatch.setattr(scoring, "score_batch", lambda *a: sizes.append(a[2].data.shape[:2].numel()) or whole(*a))
    totals = []
    for bound in (100, scoring.VECTOR_BATCH_FRAMES):
        monkeypatch.setattr(scoring, "VECTOR_BATCH_FRAMES", bound)
        scores = scoring.score_dump(experiment.model, experiment.observation, data)
        totals.append({score.utterance: score.nats for score in scores})
    assert sizes == [54, 94, 162] and scoring.VECTOR_BATCH_FRAMES < scoring.AUDIO_BATCH_FRAMES
    assert totals[0] == pytest.approx(totals[1], abs=1e-4)


def test_an_export_gives_the_same_scores_and_its_card_an_example(trained, tmp_path):
    out, test = trained
    run(score, "--exp", out, "--dump", test, "--out", tmp_path / "theirs")
    run(export, "--exp", out, "--out", tmp_path / "folder")
    run(score, "--exp", tmp_path / "folder", "--dump", test, "--out", tmp_path / "ours")
    assert (tmp_path / "ours" / "utt2nats").read_bytes() == (tmp_path / "theirs" / "utt2nats").read_bytes()
    assert load_experiment(tmp_path / "folder").observation.to_dict() == load_experiment(out).observation.to_dict()
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "count=1, frames=50, seed=0" in card and 'np.save("sample.npy"' in card
