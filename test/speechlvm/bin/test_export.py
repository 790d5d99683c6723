"""Exports: that they alone give the same scores, samples and latents, and when they are written again."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest
import soundfile
import yaml

from speechlvm.bin import export, latents, sample, score, train
from speechlvm.experiment.load import load_experiment
from speechlvm.models import MODELS, model_class
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.files import mark_done, read_json, write_json

VRNN = (
    "model: lstm\nmodel_conf: {stack: 16, hidden: 12, layers: 1}",
    "model: vrnn\nmodel_conf: {stack: 16, latent: 3, hidden: 12, state: 12, mlp_layers: 2}",
)


def run(program, *arguments):
    return program.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """Where the first test puts what the others copy."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def trained(made_once, make_dump, tiny_config, tmp_path):
    """(experiment with a score, test dump) after two steps of a VRNN."""
    out, test = tmp_path / "exp" / "train" / "tiny" / "seed1", tmp_path / "dump" / "test"
    if any(made_once.iterdir()):
        shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
        return out, test
    paths = make_dump("train", [3000, 2500, 2000]), make_dump("valid", [1200], seed=50)
    make_dump("test", [900, 1700, 333], seed=90)
    config = tiny_config(VRNN, ("steps: 12", "steps: 2"))
    run(train, "--config", config, "--train", paths[0], "--valid", paths[1], "--out", out)
    run(score, "--exp", out, "--dump", test, "--out", out / "score_test")
    shutil.copytree(tmp_path, made_once, dirs_exist_ok=True)
    return out, test


def outputs(exp, test, out):
    """Name -> content of what the programs make of a model."""
    options = ["--exp", exp, "--dump", test]
    run(score, *options, "--out", out / "score")
    run(sample, *options, "--out", out / "samples", "--count", 1, "--seconds", 0.01, "--prefix_seconds", 0.01)
    run(latents, *options, "--out", out / "latents", "--latent_samples", 1)
    kinds = (".wav", ".png", ".ark")
    names = {"utt2nats", "result.json", "samples.json", "info.json"}
    files = [path for path in out.rglob("*") if path.suffix in kinds or path.name in names]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_the_folder_alone_gives_the_same_numbers(trained, tmp_path):
    out, test = trained
    moved = tmp_path / "elsewhere" / "tiny model"
    assert run(export, "--exp", out, "--out", tmp_path / "tiny") == 0
    moved.parent.mkdir()
    (tmp_path / "tiny").rename(moved)
    theirs, made = load_experiment(out), outputs(out, test, tmp_path / "theirs")
    assert {"score/result.json", "latents/z1_mean.1.ark", "samples/prior_0.wav"} < made.keys()
    shutil.rmtree(out / "checkpoints")
    ours = load_experiment(moved)
    assert ours.config == theirs.config and ours.observation.to_dict() == theirs.observation.to_dict()
    assert (ours.provenance, ours.name, ours.train_set) == (theirs.provenance, "tiny", "train")
    assert outputs(moved, test, tmp_path / "ours") == made
    assert read_json(moved / "results" / "test.json") == read_json(out / "score_test" / "result.json")


def test_the_card_holds_what_is_known(trained, tmp_path):
    out, _ = trained
    run(export, "--exp", out, "--out", tmp_path / "a b", "--licence", "cc-by-4.0", "--data_set", "Mine")
    _, head, body = (tmp_path / "a b" / "README.md").read_text().split("---\n", 2)
    head, result = yaml.safe_load(head), read_json(out / "score_test" / "result.json")
    assert head["license"] == "cc-by-4.0" and head["library_name"] == "speechlvm" and head["tags"] == ["vrnn", "audio"]
    (entry,) = head["model-index"][0]["results"]
    assert entry["dataset"] == {"name": "Mine test", "type": "test"}
    (metric,) = entry["metrics"]
    assert metric["value"] == result["bits_per_frame"]
    assert metric["name"] == "bits per frame, coding mulaw, upper bound (ELBO)"
    data_hash = read_json(tmp_path / "dump/train/info.json")["data_hash"]
    for fact in (
        f"parameters: {result['parameters']}",
        "frames per second: 16000",
        f"training: {result['steps']} steps",
        f"seed: {result['seed']}",
        f"hashes: configuration {result['config_hash']}, data {data_hash}",
    ):
        assert f"- {fact}" in body
    assert f"≤ {result['bits_per_frame']:.3f} bits per frame" in body and "arXiv:1506.02216" in body
    assert "trained on Mine `train`." in body
    # the example
    code = body.split("```python\n")[1].split("```")[0].replace("frames=32000", "frames=160")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "sample.wav").frames == 160


def test_again_is_nothing_and_what_has_changed_is_not_overwritten(trained, tmp_path, capsys):
    out, test = trained
    folder = tmp_path / "tiny"
    run(export, "--exp", out, "--out", folder)
    os.utime(folder / "README.md", ns=(0, 0))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    (folder / "README.md").write_text("edited")  # theirs
    capsys.readouterr()
    assert run(export, "--exp", out, "--out", folder) == 0
    assert capsys.readouterr().out == f"{folder}: complete\n"
    assert {p: t for p, t in before.items() if p.stat().st_mtime_ns != t}.keys() == {folder / "README.md"}
    load_experiment(folder)
    run(score, "--exp", out, "--dump", test, "--out", out / "score_test_mulaw-pcm", "--coding", "mulaw-pcm")
    with pytest.raises(UserError, match="tiny: already exists; move it, or choose another name"):
        run(export, "--exp", out, "--out", folder)
    run(export, "--exp", out, "--out", tmp_path / "second")
    assert sorted(os.listdir(tmp_path / "second" / "results")) == ["test.json", "test_mulaw-pcm.json"]
    with pytest.raises(ConfigError, match="already an export; copy it"):
        run(export, "--exp", folder, "--out", tmp_path / "third")
    with pytest.raises(UserError, match=r"nothing: no trained model; run stage 3"):
        run(export, "--exp", tmp_path / "nothing", "--out", tmp_path / "third")


def test_scores_of_other_weights_are_refused(trained, tmp_path):
    out, _ = trained
    mark_done(out / "score_test", {**read_json(out / "score_test" / "done.json"), "model": "0" * 64})
    with pytest.raises(UserError, match="score_test: is a score of other weights; run stage 4"):
        run(export, "--exp", out, "--out", tmp_path / "tiny")
    (out / "score_test" / "done.json").unlink()
    assert run(export, "--exp", out, "--out", tmp_path / "tiny") == 0
    assert "it had not been scored" in (tmp_path / "tiny" / "README.md").read_text()
    assert not (tmp_path / "tiny" / "results").exists()


def test_complete_or_not_at_all(trained, tmp_path, monkeypatch):
    out, folder = trained[0], tmp_path / "tiny"

    def failing(path, value):
        if path.name == "manifest.json":
            raise OSError(28, "No space left on device", str(path))
        write_json(path, value)

    with monkeypatch.context() as patch:
        patch.setattr("speechlvm.experiment.export.write_json", failing)
        with pytest.raises(UserError, match="No space left on device while writing"):
            run(export, "--exp", out, "--out", folder)
    assert not folder.exists() and not list(tmp_path.glob(".tiny*"))
    left = tmp_path / ".tiny.999999999.tmp"  # of a killed process
    (left / "results").mkdir(parents=True)
    assert run(export, "--exp", out, "--out", folder) == 0
    assert not left.exists()


def test_every_system_names_its_paper():
    assert len({model_class(name).reference for name in MODELS}) == len(MODELS)


class HfApi:
    """What an export asks of the hub."""

    calls: ClassVar[list] = []

    def create_repo(self, repo_id, *, exist_ok):
        self.calls.append((repo_id, exist_ok))
        if "/" not in repo_id:
            raise OSError(f"401 Client Error.\n{repo_id}: you are not logged in")

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.calls.append((repo_id, sorted(os.listdir(folder_path))))


def test_upload(trained, tmp_path, monkeypatch, capsys):
    words = ("--exp", trained[0], "--out", tmp_path / "tiny", "--push_to_hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # not installed
    with pytest.raises(UserError, match="huggingface_hub is not installed; pip install huggingface_hub"):
        run(export, *words, "me/tiny")
    assert not (tmp_path / "tiny").exists()
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=HfApi))
    files = ["README.md", "config.yaml", "manifest.json", "model.safetensors", "observation.json", "results"]
    for said in ("1 result", "complete"):
        HfApi.calls.clear()
        assert run(export, *words, "me/tiny") == 0
        assert HfApi.calls == [("me/tiny", True), ("me/tiny", files)]
        out = capsys.readouterr().out
        assert said in out and "uploaded to https://huggingface.co/me/tiny" in out
    with pytest.raises(
        UserError, match=r"^--push_to_hub tiny: 401 Client Error\. tiny: you are not logged in; .*log in"
    ):
        run(export, *words, "tiny")
