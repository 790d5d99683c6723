"""Training and scoring of a recipe through Slurm: the numbers are those of the local runner."""

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
    """A checkout with a recipe that runs on this backend, with a configuration of its own."""
    recipe = place / "egs" / "timit"
    recipe.mkdir(parents=True)
    for name in ("utils", "tools"):
        (place / name).symlink_to(ROOT / name)
    for name in ("run.sh", "path.sh", "db.sh", "utils", "local"):
        (recipe / name).symlink_to(ROOT / "egs" / "timit" / name)
    shutil.copytree(ROOT / "egs" / "timit" / "conf", recipe / "conf")
    (recipe / "conf" / "tables" / "one.yaml").write_text(f"rows:\n  - {{experiment: {SYSTEM}}}\n", encoding="utf-8")
    (recipe / "cmd.sh").write_text(f"cmd_backend={backend}\n. utils/cmd.sh\n", encoding="utf-8")
    site = (UTILS / "conf" / "slurm.conf").read_text(encoding="utf-8")
    (recipe / "conf" / "slurm.conf").write_text(f"{site}\ncommand sbatch --comment=site\n", encoding="utf-8")
    return recipe


def start(recipe, corpus, stage, **environment):
    words = ["--timit", corpus, "--tables", "one", "--codings", "", "--nj", 2, "--nthreads", 1]
    words += ["--train_args", "--limits.steps 100 --validation.every_steps 20 --data.batch_frames 8000"]
    return subprocess.Popen(
        ["bash", "run.sh", "--stage", str(stage), "--stop_stage", "4", *map(str, words)],
        cwd=recipe,
        env={**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process):
    out, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, out[-3000:]


def scores(recipe):
    """All that scoring computed, except for the time it took."""
    found = {}
    for path in sorted(recipe.glob("exp/train/**/score_*/*")):
        if path.name == "result.json":
            found[str(path.relative_to(recipe))] = {**json.loads(path.read_text(encoding="utf-8")), "hours": None}
        elif path.name == "utt2nats":
            found[str(path.relative_to(recipe))] = path.read_text(encoding="utf-8")
    return found


@pytest.mark.recipe
def test_scores_do_not_depend_on_the_runner_nor_on_being_requeued(slurm, tmp_path):
    corpus = timit.make(tmp_path / "corpus")
    local, cluster = (checkout(tmp_path / f"check out {backend}", backend) for backend in ("local", "slurm"))
    end(start(local, corpus, 1))
    for name in ("data", "dump"):
        (cluster / name).symlink_to(local / name)
    process = start(cluster, corpus, 3, **slurm.scheduler.environment)
    log = cluster / "exp" / "train" / SYSTEM / "seed1" / "logs" / "train.log"
    wait_for(lambda: process.poll() is not None or (log.exists() and " step 20," in log.read_text()), 400)
    jobs = slurm.scheduler.jobs(log.parent)
    assert "Comment=site" in slurm.scheduler.ask("scontrol", "show", "job", *jobs)
    slurm.scheduler.warn(jobs)
    end(process)
    text = log.read_text(encoding="utf-8")
    assert "with exit status 75" in text and ", restart 1\n" in text
    assert scores(cluster) == scores(local) != {}
