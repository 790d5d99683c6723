"""Every recipe on a small imitation of its corpus, from its data to its tables, by its own run.sh."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# egs/mini brings its own corpus; TEMPLATE is run by test_template.py
CORPORA = {
    "timit": "timit",
    "librispeech": "librispeech",
    "librilight": "librilight",
    "blizzard": "blizzard",
    "iam_ondb": "iam_ondb",
    "human_motion": "cmu_mocap",
    "wavdir": "wavdir",
}


def test_no_recipe_is_forgotten():
    recipes = {path.parent.name for path in (ROOT / "egs").glob("*/run.sh")}
    assert recipes - {"mini", "TEMPLATE"} == set(CORPORA)


@pytest.mark.recipe
@pytest.mark.parametrize("recipe", CORPORA)
def test_a_recipe_runs_from_its_data_to_its_tables(recipe, tmp_path):
    imitation = importlib.import_module(f"imitations.{CORPORA[recipe]}")
    work = tmp_path / "work place"
    options = {"datadir": "data", "dumpdir": "dump", "expdir": "exp", "results": "RESULTS.md"}
    arguments = [word for name, place in options.items() for word in (f"--{name}", str(work / place))]
    arguments += ["--stage", "1", "--latent_samples", "2", "--probe_minutes", "all"]
    arguments += ["--probe_args", "--steps 3 --hidden 16 --seeds 1"]
    arguments += imitation.recipe_arguments(tmp_path / "corpus with blanks")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for attempt in ("first", "again"):
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "run.sh", *arguments], cwd=ROOT / "egs" / recipe, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        print(f"{recipe}, {attempt} time: {time.monotonic() - began:.0f} s")
    assert done.stdout.count("complete") >= 4  # the second time there is nothing to do
    results = [json.loads(path.read_text()) for path in (work / "exp").rglob("score_*/result.json")]
    trained = [result for result in results if result["steps"] is not None]  # the best step may be the first
    assert trained and all(result["utterances"] > 0 and result["frames"] > 0 for result in results)
    tables = (work / "RESULTS.md").read_text()
    assert all(result["model"] in tables for result in trained)
    pictures = list((work / "exp").rglob("*.png"))
    assert any("samples" in path.parts for path in pictures) and any("figures" in path.parts for path in pictures)
    experiments = {path.parent for path in (work / "exp").rglob("origin.json")}
    assert experiments
    for experiment in experiments:
        assert list(experiment.glob("latents_*/done.json")) and (experiment / "index.html").stat().st_size > 10_000
        assert json.loads((experiment / "analysis" / "levels" / "result.json").read_text())["representations"]
    labelled = any((work / "data").glob("train*/phones")) or any((work / "data").glob("train*/text"))
    probed = labelled and recipe != "iam_ondb"  # transcripts of strokes
    assert all((experiment / "probes" / "result.json").exists() == probed for experiment in experiments)
