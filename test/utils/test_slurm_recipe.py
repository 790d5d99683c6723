"""A recipe's dump, train and score stages through Slurm: the numbers are those of the local runner."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from cluster import UTILS, wait_for
from imitations import timit

ROOT = UTILS.parent
SYSTEM = "lstm_s64_d96_l1"


def checkout(place, backend):
    """A checkout with a recipe of its own that runs on this backend, with a configuration of its own."""
    (place / "egs").mkdir(parents=True)
    for name in ("utils", "tools"):
        (place / name).symlink_to(ROOT / name)
    recipe = place / "egs" / "timit"
    recipe.mkdir()
    for name in ("run.sh", "path.sh", "db.sh", "utils", "local"):
        (recipe / name).symlink_to(ROOT / "egs" / "timit" / name)
    shutil.copytree(ROOT / "egs" / "timit" / "conf", recipe / "conf")
    (recipe / "cmd.sh").write_text(f"cmd_backend={backend}\n. utils/cmd.sh\n", encoding="utf-8")
    site = (UTILS / "conf" / "slurm.conf").read_text(encoding="utf-8")
    (recipe / "conf" / "slurm.conf").write_text(f"{site}\ncommand sbatch --comment=site\n", encoding="utf-8")
    return recipe


def run(recipe, corpus, **environment):
    words = ["--timit", corpus, "--models", SYSTEM, "--codings", "", "--nj", 2, "--nthreads", 1]
    words += ["--train_args", "--limits.steps 100 --validation.every_steps 20 --data.batch_frames 8000"]
    return subprocess.Popen(
        ["bash", "run.sh", "--stage", "1", "--stop_stage", "4", *map(str, words)],
        cwd=recipe,
        env={**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def results(recipe):
    """All that the stages computed, but for the time it took."""
    found = {}
    for path in sorted(recipe.glob("exp/train/**/score_*/*")):
        if path.name in ("result.json", "utt2nats"):
            found[str(path.relative_to(recipe))] = path.read_text(encoding="utf-8")
            if path.name == "result.json":
                found[str(path.relative_to(recipe))] = {
                    **json.loads(found[str(path.relative_to(recipe))]),
                    "hours": None,
                }
    found |= {path.name: path.read_bytes() for path in recipe.glob("dump/pcm16/*/*.ark")}
    return found


@pytest.mark.recipe
def test_numbers_do_not_depend_on_the_runner_nor_on_being_queued_again(slurm, tmp_path):
    corpus = timit.make(tmp_path / "corpus")
    recipes = {backend: checkout(tmp_path / f"check out {backend}", backend) for backend in ("local", "slurm")}
    out, _ = (process := run(recipes["local"], corpus)).communicate(timeout=600)
    assert process.returncode == 0, out[-3000:]

    process = run(recipes["slurm"], corpus, **slurm.environment)
    log = recipes["slurm"] / "exp" / "train" / SYSTEM / "seed1" / "logs" / "train.log"
    wait_for(lambda: process.poll() is not None or (log.exists() and " step 20," in log.read_text()), 400)
    assert "Comment=site" in slurm.ask("scontrol", "show", "job", *slurm.jobs(log.parent))
    slurm.ask("scancel", "--batch", "--signal=USR1", *slurm.jobs(log.parent))  # as before the time limit
    wait_for(lambda: slurm.jobs(log.parent, "pending"))
    slurm.ask("scontrol", "update", f"JobId={slurm.jobs(log.parent)[0]}", "StartTime=now+2")
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out[-3000:]
    text = log.read_text(encoding="utf-8")
    print(text)
    assert "with exit status 75" in text and ", restart 1\n" in text
    assert results(recipes["slurm"]) == results(recipes["local"]) != {}
