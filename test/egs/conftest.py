"""Whole recipes on small imitations of their corpora."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

EGS = Path(__file__).resolve().parents[2] / "egs"


@pytest.fixture
def run_recipe(tmp_path):
    """Runs run.sh from the data to the tables and checks what every recipe must have written."""

    def run(recipe: str, probed: bool = False, again: bool = False) -> None:
        """
        Args:
            recipe: its name, and that of its imitation.
            probed: whether it trains probes.
            again: run it once more, when there is nothing to do.
        """
        imitation = importlib.import_module(f"imitations.{recipe}")
        work = tmp_path / "work place"
        options = {"datadir": "data", "dumpdir": "dump", "expdir": "exp"}
        command = ["bash", "run.sh", *(word for name, place in options.items() for word in (f"--{name}", work / place))]
        command += ["--stage", "1", "--latent_samples", "2", "--probe_minutes", "all"]
        command += ["--probe_args", "--steps 3 --hidden 16 --seeds 1"]
        command += imitation.recipe_arguments(tmp_path / "corpus with blanks")
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for _ in range(1 + again):
            began = time.monotonic()
            done = subprocess.run(command, cwd=EGS / recipe, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            print(f"{recipe}: {time.monotonic() - began:.0f} s")
        assert not again or done.stdout.count("complete") >= 4
        check(work, probed)

    return run


def check(work: Path, probed: bool) -> None:
    """Scores, tables, pictures, and of each experiment the analysis and the page."""
    results = [json.loads(path.read_text()) for path in (work / "exp").rglob("score_*/result.json")]
    trained = [result for result in results if result["steps"] is not None]  # the best step may be the first
    assert trained and all(result["utterances"] > 0 and result["frames"] > 0 for result in results)
    [tables] = [path.read_text() for path in (work / "exp").glob("*/RESULTS.md")]
    assert all(result["model"] in tables for result in trained)
    pictures = list((work / "exp").rglob("*.png"))
    assert any("samples" in path.parts for path in pictures) and any("figures" in path.parts for path in pictures)
    experiments = {path.parent for path in (work / "exp").rglob("origin.json")}
    assert experiments
    for experiment in experiments:
        assert list(experiment.glob("latents_*/done.json")) and (experiment / "index.html").stat().st_size > 10_000
        assert json.loads((experiment / "analysis" / "levels" / "result.json").read_text())["representations"]
        assert (experiment / "probes" / "result.json").exists() == probed
