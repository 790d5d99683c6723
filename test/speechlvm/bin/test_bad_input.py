"""Bad input as users meet it: exit status and message of programs and recipes, one case each.

Everything that is refused, and why, is tested with the functions that refuse it: audio in data/test_audio.py, data
directories in data/kaldi, archives in data/corpora, configurations and checkpoints in experiment.
"""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from programs import call

from speechlvm.bin import score, train
from speechlvm.experiment.checkpoint import Checkpoints
from speechlvm.models import MODELS, model_class
from speechlvm.utils.errors import ConfigError
from speechlvm.utils.settings import validated

ROOT = Path(__file__).resolve().parents[3]


def test_a_wrong_configuration_is_refused_first(tiny_config, make_dump, tmp_path, monkeypatch):
    path, dump = tiny_config(("learning_rate", "learing_rate")), make_dump("set", [300])
    monkeypatch.setattr("speechlvm.data.dumps.open_dump", None)
    monkeypatch.setattr("speechlvm.experiment.load.build", None)
    done = call(train.main, "--config", path, "--train", dump, "--valid", dump, "--out", tmp_path / "exp")
    lines = [
        f"error: {path}: training.learing_rate: unknown key; did you mean 'learning_rate'?",
        f"{path}: training.learning_rate: missing; it has no default\n",
    ]
    assert (done.returncode, done.stderr) == (2, "; ".join(lines))
    assert not (tmp_path / "exp").exists()


def test_all_sizes_of_all_systems_have_bounds():
    """Of each number in the settings of each system; 10**9 of none is accepted, nor 0 or less if it is a size."""
    checked = 0
    for name in MODELS:
        settings = model_class(name).Config
        for key, field in settings.model_fields.items():
            if field.annotation is int:
                checked += 1
                needed = {k: 16 for k, f in settings.model_fields.items() if f.is_required() and k != key}
                for value in (-1, 10**9, float("nan"), "16", [16]):
                    with pytest.raises(ConfigError, match=rf"^s: {key}: input should be .*found"):
                        validated(settings, {**needed, key: value}, "s")
    assert checked > 25


@pytest.fixture
def read_only(tmp_path):
    """Runs a command with <tmp_path>/read-only as a file system of its own, which nobody else sees."""
    (tmp_path / "read-only").mkdir()
    mount = ("sh", "-ec", 'mount -t tmpfs -o ro tmpfs "$1"; shift; "$@"', "sh", tmp_path / "read-only")
    for flags in ("-m", "-rm"):
        if subprocess.run(["unshare", flags, *mount, "true"], capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("no file system can be mounted here (unshare -m needs root, unshare -rm user namespaces)")

    def run(*words, **environment):
        command = ["unshare", flags, *mount, *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=1200, cwd=tmp_path, env={**os.environ, **environment}
        )

    return run


def test_experiments_that_cannot_be_written_are_refused_at_the_start(tiny_config, make_dump, tmp_path, read_only):
    dump = make_dump("set", [300])
    words = ("--config", tiny_config(), "--train", dump, "--valid", dump, "--out", tmp_path / "read-only/exp")
    done = read_only(sys.executable, "-m", "speechlvm.bin.train", *words, PYTHONPATH=str(ROOT))
    error = f"{tmp_path}/read-only/exp/lock: cannot be written (Read-only file system); choose another directory"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {error}\n")


def test_a_recipe_looks_at_its_experiments_first(tmp_path, read_only):
    words = ("bash", ROOT / "egs/mini/run.sh", "--stage", "2", "--expdir", tmp_path / "read-only/exp")
    done = read_only(*words, PATH="/usr/bin:/bin", HOME=str(tmp_path))
    error = f"--expdir {tmp_path}/read-only/exp: not writable (read-only file system or permissions)"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"run.sh: {error}; choose another directory\n")


class Payload:
    def __reduce__(self):
        return os.system, ("touch canary",)


def test_a_checkpoint_is_never_unpickled(tiny_config, make_dump, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints, content = Checkpoints(tmp_path / "exp/checkpoints"), pickle.dumps(Payload())
    checkpoints.save(7, {"model": {}})
    checkpoints.mark_best(7, -1.0)
    checkpoints.path(7).write_bytes(content)
    path = checkpoints.directory / "best.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": hashlib.sha256(content).hexdigest()}))
    tiny_config().rename(tmp_path / "exp/config.yaml")
    (tmp_path / "exp/origin.json").write_text('{"train_set": "train"}')
    done = call(score.main, "--exp", tmp_path / "exp", "--dump", make_dump("set", [300]), "--out", tmp_path / "score")
    message = "damaged, or not a checkpoint of this project (BadZipFile); nothing was loaded"
    assert (done.returncode, done.stderr) == (1, f"error: {checkpoints.path(7)}: {message}\n")
    assert not (tmp_path / "canary").exists() and not (tmp_path / "score/result.json").exists()
