"""The check of recipes: those of egs/ pass, every kind of lack is reported, and the template becomes one that runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from imitations import wavdir

from speechlvm.bin.baseline import BASELINES
from speechlvm.bin.recipe import MADE_BY_RUNS
from speechlvm.bin.recipe import lacks as lacks_of
from speechlvm.data.audio import write_wav
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import read_json

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.parent.name for path in (ROOT / "egs").glob("*/run.sh") if path.parent.name != "TEMPLATE")


def lacks(recipe: Path) -> list[str]:
    return lacks_of(recipe, BASELINES)


def copy_of(root: Path, *folders: str) -> Path:
    """The shell side and some folders of egs/, in a path with blanks, with an environment that is there already."""
    shutil.copytree(ROOT / "utils", root / "utils")
    for name in folders:
        shutil.copytree(
            ROOT / "egs" / name, root / "egs" / name, ignore=shutil.ignore_patterns(*MADE_BY_RUNS, "exp*", "RESULTS.md")
        )
    (root / "tools").mkdir()
    (root / "tools/setup.sh").write_text("exit 0\n", encoding="utf-8")
    (root / "tools/venv").symlink_to(sys.prefix)
    return root


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_complete(name):
    assert lacks(ROOT / "egs" / name) == []


def test_the_template_lacks_only_what_is_to_be_filled_in(tmp_path):
    root = copy_of(tmp_path / "a clone", "TEMPLATE") / "egs/TEMPLATE"
    (root / "RECIPE.md").rename(root / "README.md")
    found = lacks(root)
    assert found and all("'FILL IN' is still there" in lack for lack in found), found
    assert {lack.removeprefix(f"{root}/").partition(":")[0] for lack in found} >= {"run.sh", "db.sh", "README.md"}


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> Path:
    root = copy_of(tmp_path_factory.mktemp("a clone"), "wavdir") / "egs/wavdir"
    assert lacks(root) == []
    return root


def edit(name: str, old: str, new: str):
    def change(recipe: Path) -> None:
        text = (recipe / name).read_text(encoding="utf-8")
        assert old in text
        (recipe / name).write_text(text.replace(old, new), encoding="utf-8")

    return change


def remove(name: str):
    return lambda recipe: (recipe / name).unlink()


def add(name: str, text: str):
    def change(recipe: Path) -> None:
        with open(recipe / name, "a", encoding="utf-8") as file:
            file.write(text)

    return change


CONFIG, TABLE = "conf/lstm_s64.yaml", "conf/tables/ours.yaml"
MUTATIONS = {
    **{
        f"no {name}": (remove(name), f"{name}: missing (")
        for name in (
            "run.sh", "cmd.sh", "path.sh", "db.sh", "local/data.sh", "local/download.sh", "README.md"
        )
    },  # fmt: skip
    "no systems": (lambda r: [path.unlink() for path in r.glob("conf/*.yaml")], "conf: no *.yaml; write at least one"),
    "no tables": (remove(TABLE), "conf/tables: no *.yaml; write at least one, for a table"),
    "shell": (add("local/data.sh", "if\n"), "local/data.sh: not valid bash: "),
    "not strict": (edit("local/data.sh", "set -euo pipefail\n", ""), "local/data.sh:1: expected '#!/usr/bin/env bash'"),
    "no shebang": (edit("run.sh", "#!/usr/bin/env bash\n", "#!/bin/sh\n"), "run.sh:1: expected '#!/usr/bin/env bash'"),
    "sourced": (edit("cmd.sh", "# shellcheck shell=bash", "#"), "cmd.sh:1: expected '# shellcheck shell=bash'"),
    "long": (add("local/data.sh", "true\n" * 250), "lines; expected at most 250"),
    "no options": (edit("run.sh", ". ../../utils/options.sh\n", ""), "run.sh: does not source ../../utils/options.sh"),
    "no stages": (edit("run.sh", ". ../../utils/stages.sh\n", ""), "run.sh: does not source ../../utils/stages.sh"),
    "no path": (edit("path.sh", ". ../../utils/path.sh\n", ""), "path.sh: does not source ../../utils/path.sh"),
    "order": (
        lambda r: [edit("run.sh", "\n. ../../utils/stages.sh\n", "\n")(r),
                   edit("run.sh", "\ntrain_set", "\n. ../../utils/stages.sh\ntrain_set")(r),
                   edit("run.sh", "\n. ../../utils/parse_options.sh\n", "\n")(r),
                   add("run.sh", "\n. ../../utils/parse_options.sh\n")(r)],
        "run.sh: sources options, parse_options, stages in another order",
    ),
    "no db": (edit("run.sh", ". ./db.sh\n", "WAV_DIR=x\n"), "run.sh: does not source db.sh, which sets something"),
    "help": (edit("run.sh", "set -euo pipefail\n", "set -euo pipefail\nfalse\n"), "run.sh: --help, called from"),
    "elsewhere": (edit("run.sh", 'cd -- "$(dirname -- "${BASH_SOURCE[0]}")"\n', ""), "run.sh: --help, called from"),
    "comment": (edit("run.sh", "none         # who", "none\n# who"), "run.sh: --help says nothing of --speakers"),
    "data_root": (edit("run.sh", "data_root", "data_rot"), 'run.sh: no option --data_root'),
    "train_set": (edit("run.sh", "train_set=train\n", "train_set=\n"), "run.sh: train_set is not set"),
    "test_sets": (edit("run.sh", 'test_sets="test"', 'test_sets=""'), "run.sh: test_sets is not set"),
    "twice": (edit("run.sh", "valid_set=valid", "valid_set=test"), "run.sh: set 'test' is used twice"),
    "material": (edit("run.sh", 'test_sets="test"', 'test_sets="test"\nmaterial=wav'), "run.sh: material is 'wav'"),
    "stops": (edit("run.sh", "train_set=train\n", "train_set=train\nfalse\n"), "run.sh: does not get as far as"),
    "argument": (edit("local/data.sh", "speakers=none", "speaker=none"), "local/data.sh: does not take --speakers"),
    "hook help": (edit("local/data.sh", "set -euo pipefail\n", "set -euo pipefail\nfalse\n"), "local/data.sh: --help "),
    "python": (add("local/prepare.py", "def\n"), "not valid Python: "),
    "key": (add(CONFIG, "sped: 1\n"), f"{CONFIG}: sped: unknown key"),
    "header": (edit(CONFIG, "# Table", "#Table"), f"{CONFIG}:1: expected a comment that says which row"),
    "vectors": (edit("run.sh", 'test_sets="test"', 'test_sets="test"\nmaterial=vectors'),
                f"{CONFIG}: coding mulaw; expected normalised, as the material is vectors"),
    "no row": (add("conf/other.yaml", (ROOT / "egs/wavdir" / CONFIG).read_text(encoding="utf-8")),
               "conf/other.yaml: in no table; give it a row"),
    "no config": (edit(TABLE, "experiment: lstm_s64", "experiment: lstm_s65"),
                  f"{TABLE}: no conf/lstm_s65.yaml for the row LSTM Dd=256, L=1"),
    "table": (edit(TABLE, "title:", "titel:"), f"{TABLE}: "),
    "table's name": (edit(TABLE, "table: ours", "table: mine"), f"{TABLE}: table 'mine'"),
    "set": (edit(TABLE, "sets: [test]", "sets: [test_clean]"), f"{TABLE}: set 'test_clean' is not in run.sh"),
    "coding": (edit(TABLE, "coding: mulaw", "coding: linear"), f"{TABLE}: coding linear, but {CONFIG} has mulaw"),
    "output": (edit(TABLE, "experiment: lstm_s64", "experiment: lstm_s64, distribution: categorical"),
               f"{TABLE}: categorical, but {CONFIG} has dmol"),
    "title": (lambda r: (r / "README.md").write_text("\n" + (r / "README.md").read_text(encoding="utf-8")),
              "README.md:1: expected a title"),
    "how": (edit("README.md", "bash run.sh", "run it"), "README.md: does not say how to run it"),
    "sets": (edit("README.md", "valid", "v"), "README.md: does not mention the set 'valid'"),
    "option": (edit("README.md", "--channel", "--chanel"), "README.md: does not mention the option --channel"),
    "time": (lambda r: (r / "README.md").write_text(re.sub(
        r"\b(hours?|min(utes?)?|h|s|seconds?)\b", "x", (r / "README.md").read_text(encoding="utf-8"))),
        "README.md: no word on time"),
    "mark": (add("local/data.sh", "# FILL IN: this\n"), "'FILL IN' is still there"),
    "machine": (add("db.sh", f"X=/{'home'}/me/corpus\n"), "db.sh:5: path of one machine"),
}  # fmt: skip


@pytest.mark.parametrize("change, message", MUTATIONS.values(), ids=MUTATIONS)
def test_every_kind_of_lack_is_reported(complete, tmp_path, change, message):
    shutil.copytree(complete.parents[1], tmp_path / "a clone", symlinks=True)
    recipe = tmp_path / "a clone/egs/wavdir"
    change(recipe)
    found = lacks(recipe)
    assert any(message in lack for lack in found), found
    assert all("\n" not in lack and lack.startswith(f"{recipe}/") for lack in found)


def test_no_such_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder; give a recipe"):
        lacks(tmp_path / "nothing")


def test_as_a_command(complete):
    environment = {**os.environ, "VIRTUAL_ENV": "x", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def check(*words):
        command = ["bash", ROOT / "utils/check_recipe.sh", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=complete)

    done = check(".")
    assert (done.returncode, done.stdout, done.stderr) == (0, ".: complete\n", "")
    done = check("../none")
    assert done.returncode == 1 and "error: ../none: no such folder" in done.stderr
    assert check().returncode == 2


# --- The page "add a data set in 20 minutes", step by step ------------------------------------------------------------


def commands_of_the_page() -> list[str]:
    """The commands of the page's code blocks, in their order."""
    page = (ROOT / "egs/TEMPLATE/README.md").read_text(encoding="utf-8")
    return [
        line.strip()
        for block in re.findall(r"```\n(.*?)```", page, re.S)
        for line in block.splitlines()
        if line.strip()
    ]


def fill_in(recipe: Path) -> None:
    """What a person does at the marks: here the template's own layout is right, so that they only go."""
    for path in recipe.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            text = re.sub(r"^# FILL IN: (the names of the sets|where to get it).*\n", "", text, flags=re.M)
            path.write_text(text.replace("FILL IN: ", "").replace("FILL IN", ""), encoding="utf-8")


def walk(tmp_path: Path, kind: str) -> Path:
    """Step 1 and 2 of the page; returns the recipe."""
    root = copy_of(tmp_path / "a clone", "TEMPLATE")
    commands = commands_of_the_page()
    copying = commands[:3]
    assert copying == ["cp -r egs/TEMPLATE egs/mine", "cd egs/mine", "mv RECIPE.md README.md"]
    chosen = ["rm -r vectors"] if kind == "audio" else commands[3:7]
    assert chosen[-1] == "rm -r vectors"
    subprocess.run(["bash", "-euc", "\n".join(copying + chosen)], cwd=root, check=True)
    recipe = root / "egs/mine"
    if kind == "vectors":
        edit("run.sh", 'test_sets="test"\n', 'test_sets="test"\nmaterial=vectors\n')(recipe)
    assert "FILL IN" in "".join(lacks(recipe))
    fill_in(recipe)
    assert lacks(recipe) == []
    return recipe


def corpus_of(root: Path, kind: str) -> Path:
    for use in ("train", "valid", "test"):
        for index in range(3):
            home = root / use / f"{use[:2]}{index % 2}"
            home.mkdir(parents=True, exist_ok=True)
            samples = wavdir.tone(index + 3 * len(use), 4000 + index)
            if kind == "audio":
                write_wav(home / f"{index}.wav", samples, 16000)
            else:
                values = samples[:120].reshape(40, 3) / 1000
                np.savetxt(home / f"{index}.csv", values, "%.3f", ",", header="x,y,z", comments="")
    (root / "train/tr0/notes.doc").write_text("x")
    return root


SMALL = {
    "audio": "--limits.steps 2 --model_conf.hidden 8 --data.batch_frames 16384",
    "vectors": "--limits.steps 2 --model_conf.hidden 8 --model_conf.state 8 --model_conf.latent 4",
}


@pytest.mark.recipe
@pytest.mark.parametrize("kind", ["audio", "vectors"])
def test_twenty_minutes(tmp_path, kind):
    recipe = walk(tmp_path, kind)
    corpus = corpus_of(tmp_path / "the corpus", kind)
    command = [
        "bash",
        "run.sh",
        "--corpus",
        corpus,
        "--nj",
        "1",
        "--train_args",
        SMALL[kind],
        "--sample_seconds",
        "0.1",
    ]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    # samples of a model of two steps show nothing that other recipes' runs do not
    for stages in (["--stop_stage", "4"], ["--stage", "10"]):
        done = subprocess.run(
            command + stages, cwd=recipe, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
    experiment = "lstm_s64" if kind == "audio" else "vrnn_s1"
    result = read_json(recipe / f"exp/train/{experiment}/seed1/score_test/result.json")
    assert (result["utterances"], result["steps"]) == (3, 2)
    assert result["frames"] == (12003 if kind == "audio" else 120)
    results = (recipe / "RESULTS.md").read_text(encoding="utf-8")
    assert re.search(rf"\| 2 +\| 1 +\| {experiment} +\|", results), results


@pytest.mark.parametrize("kind", ["audio", "vectors"])
def test_the_template_names_what_is_wrong(tmp_path, kind):
    recipe = walk(tmp_path, kind)
    corpus = corpus_of(tmp_path / "the corpus", kind)
    if kind == "audio":
        (corpus / "test/te0/0.wav").write_bytes(b"")
        (corpus / "valid/tr0").mkdir()
        write_wav(corpus / "valid/tr0/0.wav", wavdir.tone(1, 500), 16000)
        expected = [
            "test/te0/0.wav: empty file",
            "the same id, tr0-0, as ",
            "valid/tr0/0.wav: speaker tr0 is also in train",
        ]
    else:
        edit("test/te0/0.csv", "x,y,z", "x,y")(corpus)
        with open(corpus / "train/tr1/1.csv", "a", encoding="utf-8") as file:
            file.write("1,2\n")
        (corpus / "valid/va1/1.csv").write_text("x,y,z\n")
        expected = [
            "test/te0/0.csv:1: expected the names",
            "train/tr1/1.csv:42: '1,2'; expected 3 numbers",
            "no frames",
        ]
    command = [sys.executable, "local/prepare.py", "--corpus", corpus, "--out", tmp_path / "out"]
    done = subprocess.run(
        command, cwd=recipe, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 1 and not (tmp_path / "out/train").exists()
    for message in expected:
        assert sum(message in line for line in done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize("script", ["check_recipe.sh", "validate_data_dir.sh", "fix_data_dir.sh"])
def test_programs_are_those_of_the_script_s_own_tree(tmp_path, script):
    """Also where CDPATH is exported: there cd says where it goes."""
    python = tmp_path / "tools/venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$PYTHONPATH"\n')
    python.chmod(0o755)
    (tmp_path / "utils").mkdir()
    shutil.copy(ROOT / "utils" / script, tmp_path / "utils")
    environment = {"PATH": os.environ["PATH"], "CDPATH": "."}
    done = subprocess.run(
        ["bash", f"utils/{script}", "x"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}\n"), done.stderr
