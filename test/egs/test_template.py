"""The page "add a data set in 20 minutes", step by step, for audio and for vectors."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import programs
import pytest
from imitations import template

from speechlvm.data.audio import write_wav
from speechlvm.utils.files import read_json

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "wav": "--limits.steps 2 --model_conf.hidden 8 --data.batch_frames 16384",
    "csv": "--limits.steps 2 --model_conf.hidden 8 --model_conf.state 8 --model_conf.latent 4",
}


def made_by_the_page(root: Path, ending: str) -> Path:
    """The recipe that its commands make in a clone in a path with blanks, with an environment that is there already."""
    shutil.copytree(ROOT / "utils", root / "utils")
    shutil.copytree(ROOT / "egs/TEMPLATE", root / "egs/TEMPLATE", symlinks=True)
    (root / "tools").mkdir()
    (root / "tools/setup.sh").write_text("exit 0\n", encoding="utf-8")
    (root / "tools/venv").symlink_to(sys.prefix)
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "egs/TEMPLATE/README.md").read_text(encoding="utf-8"), re.S)
    commands = blocks[0] + (blocks[1] if ending == "csv" else "rm -r vectors")
    subprocess.run(["bash", "-euc", commands], cwd=root, check=True)
    recipe = root / "egs/mine"
    if ending == "csv":
        text = (recipe / "run.sh").read_text(encoding="utf-8")
        (recipe / "run.sh").write_text(text.replace('test_sets="test"\n', 'test_sets="test"\nmaterial=vectors\n'))
    return recipe


@pytest.mark.recipe
@pytest.mark.parametrize("ending", ["wav", "csv"])
def test_the_page_makes_a_recipe_that_runs(tmp_path, ending):
    recipe = made_by_the_page(tmp_path / "a clone", ending)
    corpus = template.make(tmp_path / "the corpus", ending)
    command = ["bash", "run.sh", "--corpus", corpus, "--nj", "1", "--train_args", SMALL[ending]]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    # samples of a model of two steps show nothing that other recipes' runs do not
    for stages in (["--stop_stage", "4"], ["--stage", "10"]):
        done = subprocess.run(command + stages, cwd=recipe, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    experiment, frames = ("lstm_s64", 12003) if ending == "wav" else ("vrnn_s1", 120)
    result = read_json(recipe / f"exp/train/{experiment}/seed1/score_test/result.json")
    assert (result["utterances"], result["steps"], result["frames"]) == (3, 2, frames)
    tables = (recipe / "exp/train/RESULTS.md").read_text(encoding="utf-8")
    assert re.search(rf"\| \d+ +\| 1 +\| {experiment} +\|", tables)


@pytest.mark.parametrize("ending", ["wav", "csv"])
def test_what_is_wrong_with_a_corpus_is_named_and_nothing_is_written(tmp_path, ending):
    corpus = template.make(tmp_path / "the corpus", ending)
    if ending == "wav":
        (corpus / "test/te0/0.wav").write_bytes(b"")
        (corpus / "valid/tr0").mkdir()
        write_wav(corpus / "valid/tr0/0.wav", np.arange(500, dtype=np.int16), 16000)
        expected = [
            "test/te0/0.wav: empty file",
            "the same id, tr0-0, as ",
            "valid/tr0/0.wav: speaker tr0 is also in train",
        ]
    else:
        (corpus / "test/te0/0.csv").write_text("x,y\n1,2\n")
        with open(corpus / "train/tr1/1.csv", "a", encoding="utf-8") as file:
            file.write("1,2\n")
        (corpus / "valid/va1/1.csv").write_text("x,y,z\n")
        expected = [
            "test/te0/0.csv:1: expected the names",
            "train/tr1/1.csv:42: '1,2'; expected 3 numbers",
            "va1/1.csv: no frames",
        ]
    program = ROOT / "egs/TEMPLATE" / ("local" if ending == "wav" else "vectors/local") / "prepare.py"
    done = programs.call(programs.load(program).main, "--corpus", corpus, "--out", tmp_path / "out")
    assert done.returncode == 1 and not (tmp_path / "out/train").exists()
    for message in expected:
        assert sum(message in line for line in done.stderr.splitlines()) == 1, done.stderr
