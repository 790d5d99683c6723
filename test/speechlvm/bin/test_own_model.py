"""The example of MODELS.md, from a package of its own, through all programs."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from programs import call

from speechlvm.bin import check_model, compress, decompress, export, latents, sample, score, train
from speechlvm.data.audio import read_audio
from speechlvm.data.dumps import open_dump
from speechlvm.experiment.load import load_experiment
from speechlvm.scoring.contract import CHECKS
from speechlvm.utils.errors import ConfigError
from speechlvm.utils.files import read_json

PAGE = (Path(__file__).resolve().parents[3] / "MODELS.md").read_text(encoding="utf-8")
[CODE] = re.findall(r"(?s)```python\n(.*?)```", PAGE)
CONFIG = re.findall(r"(?s)```yaml\n(.*?)```", PAGE)[0]
SMALLER = {"hidden: 64": "hidden: 12", "every_steps: 100": "every_steps: 10", "steps: 1000": "steps: 20"}


def run(program, *words):
    done = call(program.main, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def configuration(tmp_path, monkeypatch):
    """The example's configuration, made smaller; its package is in a folder of its own, and allowed."""
    package = tmp_path / "their code" / "my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "gru.py").write_text(CODE)
    monkeypatch.setenv("SPEECHLVM_MODELS", str(package))
    text = CONFIG
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "my_gru.yaml"
    path.write_text(text)
    yield path
    for name in ("my_package", "my_package.gru"):
        sys.modules.pop(name, None)


def test_the_page_has_all_promises_and_what_the_program_says(configuration):
    assert re.findall(r"(?m)^\| `(\w+)` \| ", PAGE.split("| promise |")[1].split("## ")[0]) == list(CHECKS)
    assert f"```\n{run(check_model, '--config', configuration)}```\n" in PAGE
    assert 50 <= len(CODE.splitlines()) <= 70


def test_the_example_goes_through_all_programs(configuration, make_dump, tmp_path, monkeypatch):
    sets = make_dump("train", [3000, 2500, 2000]), make_dump("valid", [1200], seed=50)
    test, out = make_dump("test", [300, 450, 33], seed=90), tmp_path / "exp" / "my_gru" / "seed1"
    run(train, "--config", configuration, "--train", sets[0], "--valid", sets[1], "--out", out)
    run(score, "--exp", out, "--dump", test, "--out", out / "score_test")
    result = read_json(out / "score_test" / "result.json")
    assert result["system"] == "my_package.gru:GRU" and result["bound"] == "exact"
    assert result["bits_per_frame"] < 15.9
    run(export, "--exp", out, "--out", tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text()
    for words in ("`my_package.gru:GRU` (the example in MODELS.md)", "`export SPEECHLVM_MODELS=/path/to/my_package`"):
        assert words in card
    dump = open_dump(test)
    for exp in (out, tmp_path / "exported"):
        where = tmp_path / "made" / exp.name
        run(sample, "--exp", exp, "--dump", test, "--out", where / "samples", "--count", 1, "--seconds", 0.02,
            "--prefix_seconds", 0.01)  # fmt: skip
        assert len(read_audio(where / "samples" / "prior_0.wav")) == 320
        run(latents, "--exp", exp, "--dump", test, "--out", where / "latents")
        assert read_json(where / "latents" / "info.json")["representations"][0]["name"] == "h"
        run(compress, "--exp", exp, "--dump", test, "--out", where / "file")
        run(decompress, "--exp", exp, where / "file", "--out", where / "wav")
        for utterance in dump.records:
            np.testing.assert_array_equal(read_audio(where / "wav" / f"{utterance}.wav"), dump.read(utterance))

    # somebody else has the package, too, but did not allow it
    monkeypatch.delenv("SPEECHLVM_MODELS")
    for exp in (out, tmp_path / "exported"):
        with pytest.raises(ConfigError, match="'my_package.gru:GRU' is code from outside speechlvm"):
            load_experiment(exp)
