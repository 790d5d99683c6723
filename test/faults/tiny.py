"""A recipe whose stages take seconds, and what it has written after each of them."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from imitations import timit, wavdir

from faults import results
from faults.hooks import file_operations
from faults.processes import Running

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 600  # for a stage that nothing disturbs, on a machine with other work

SYSTEMS = {
    "lstm": {"stack": 64, "hidden": 8, "layers": 1},
    "vrnn": {"stack": 64, "latent": 4, "hidden": 8, "state": 8, "mlp_layers": 2},
    "wavenet": {"stack": 64, "channels": 8},
}
CONFIG = {
    "coding": "mulaw",
    "distribution": "dmol",
    "distribution_conf": {"components": 2},
    "data": {"batch_frames": 4096, "segment_frames": 1024},
    "training": {"learning_rate": {"peak": 0.002, "schedule": "cosine", "final": 0.0001, "warmup_steps": 2}},
    "validation": {"every_steps": 3, "utterances": 4},
    "limits": {"steps": 24},
}
TABLE = {
    "table": "tiny",
    "title": "bits per frame",
    "unit": "bits_per_frame",
    "coding": "mulaw",
    "sets": ["test"],
    "rows": [
        {"s": 64, "system": name, "configuration": "", "experiment": name}
        for name in ("uniform", "dmol", "flac", *SYSTEMS)
    ],
}
PATH_SH = """# shellcheck shell=bash
# Sourced: the environment of this recipe's programs, and what counts their file operations.

. utils/path.sh
export PYTHONPATH="${SPEECHLVM_TEST_PYTHONPATH:-}"
"""


@dataclass(frozen=True)
class Step:
    """A stage for one system, or a preparation of data.

    Attributes:
        name: for tables.
        recipe: whose run.sh it is: tiny, or one of egs/.
        stage: its number.
        options: of run.sh.
    """

    name: str
    recipe: str
    stage: int
    options: tuple[str, ...] = ()


def _steps() -> tuple[Step, ...]:
    jobs = {2: "2", 4: "2"}  # with some of the stages in two jobs side by side
    steps = [Step("data preparation", "wavdir", 1), Step("data preparation", "tiny", 1), Step("dump", "tiny", 2)]
    systems = {3: SYSTEMS, 4: SYSTEMS, 5: ("lstm", "vrnn"), 6: ("vrnn", "lstm"), 7: ("vrnn",), 8: ("vrnn",)}
    names = {3: "train", 4: "score", 5: "sample", 6: "latents", 7: "analyses", 8: "probes"}
    for stage, name in names.items():
        steps += [Step(name, "tiny", stage, ("--models", system)) for system in systems[stage]]
    steps += [Step("compression", "tiny", 9), Step("report, pages", "tiny", 10)]
    return tuple(Step(s.name, s.recipe, s.stage, (*s.options, "--nj", jobs.get(s.stage, "1"))) for s in steps)


STEPS = _steps()


class Tiny:
    """The recipe, its corpus, and copies of its results after each step.

    What is written lies under `work`, whose path is part of what is written: results are compared within one `Tiny`.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.work = self.root / "work"
        self.seconds: dict[int, float] = {}
        self.operations: dict[int, int] = {}
        self.digests: dict[int, dict[str, str]] = {0: {}}
        if not self.work.exists():
            self._make()

    def _make(self) -> None:
        self.work.mkdir(parents=True)
        for name in ("utils", "tools"):
            (self.root / name).symlink_to(ROOT / name)
        for name, source in (("tiny", ROOT / "egs" / "timit"), ("wavdir", ROOT / "egs" / "wavdir")):
            recipe = self.root / "egs" / name
            recipe.mkdir(parents=True)
            for script in ("run.sh", "cmd.sh", "db.sh"):
                shutil.copy(source / script, recipe)
            for folder in ("local", "utils"):
                (recipe / folder).symlink_to(source / folder)
            (recipe / "path.sh").write_text(PATH_SH)
        (self.root / "egs" / "wavdir" / "conf").symlink_to(ROOT / "egs" / "wavdir" / "conf")
        conf = self.root / "egs" / "tiny" / "conf"
        (conf / "tables").mkdir(parents=True)
        for name, settings in SYSTEMS.items():
            (conf / f"{name}.yaml").write_text(yaml.safe_dump({"model": name, "model_conf": settings, **CONFIG}))
        (conf / "tables" / "tiny.yaml").write_text(yaml.safe_dump(TABLE))
        timit.make(self.root / "corpus")
        wavdir.make(self.root / "folder", files=3, frames=4000)

    def command(self, step: Step) -> list[str]:
        """The call of run.sh for a step, whose own options come last, and so count."""
        work, prefix = self.work, "" if step.recipe == "tiny" else f"{step.recipe}_"
        words = ["bash", "run.sh", "--stage", str(step.stage), "--stop_stage", str(step.stage)]
        for option, name in (("datadir", "data"), ("dumpdir", "dump"), ("expdir", "exp"), ("results", "RESULTS.md")):
            words += [f"--{option}", str(work / f"{prefix}{name}")]
        if step.recipe == "wavdir":
            words += [
                "--wav_dir",
                str(self.root / "folder"),
                "--speakers",
                "folder",
                "--channel",
                "mix",
                "--bits",
                "16",
            ]
            return [*words, *step.options]
        words += ["--timit", str(self.root / "corpus"), "--nthreads", "1", "--codings", "", "--sample_seconds", "0.05"]
        words += ["--latent_samples", "2", "--analysis_sets", "train valid test", "--probe_minutes", "all"]
        words += ["--probe_args", "--steps 3 --hidden 8 --seeds 1 --vocabulary 20"]
        return [*words, *step.options]

    def environment(self, hold_at: int | None = None) -> dict[str, str]:
        """Of its programs; with `hold_at` (0: never) the file operations of all of them together are counted."""
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        own = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
        hooks = [] if hold_at is None else [str(Path(file_operations.__file__).parent)]
        environment["SPEECHLVM_TEST_PYTHONPATH"] = ":".join(hooks + own)
        if hold_at is not None:
            self.counter.unlink(missing_ok=True)
            environment[file_operations.ENVIRONMENT] = file_operations.describe(
                self.work, hold_at, "hold", self.counter
            )
        return environment

    @property
    def counter(self) -> Path:
        """One byte for each file operation."""
        return self.root / "operations"

    def start(self, step: Step, hold_at: int | None = None, output: str = "output") -> Running:
        """A step, started; what it prints goes to the file `output` in `root`."""
        command, cwd = self.command(step), self.root / "egs" / step.recipe
        return Running(command, cwd, self.environment(hold_at), self.root / output)

    def run(self, step: Step) -> tuple[int | None, str]:
        """Exit status (None: it did not end) and what was printed, of a step that nothing disturbs."""
        running = self.start(step)
        status = running.wait(PATIENCE_SECONDS)
        running.kill_all()
        return status, running.text()

    def reach(self, number: int) -> None:
        """Have the undisturbed results of the first `number` of `STEPS`.

        Raises:
            RuntimeError: a step fails undisturbed.
        """
        for index in range(number):
            if index + 1 in self.digests:
                continue
            self.restore(index)
            step, began = STEPS[index], time.monotonic()
            running = self.start(step, hold_at=0)
            status = running.wait(PATIENCE_SECONDS)
            running.kill_all()
            if status != 0:
                raise RuntimeError(f"{step}: status {status}, undisturbed: {running.text()[-3000:]}")
            self.seconds[index] = time.monotonic() - began
            self.operations[index] = self.counter.stat().st_size if self.counter.exists() else 0
            shutil.copytree(self.work, self._copy(index + 1), symlinks=True)
            self.digests[index + 1] = results.digests(self.work)

    def _copy(self, number: int) -> Path:
        return self.root / "after" / str(number)

    def restore(self, number: int) -> None:
        """`work` as it was after the first `number` steps, to the times of files."""
        for path in self.work.iterdir():  # `work` itself may be a mount
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if number:
            shutil.copytree(self._copy(number), self.work, symlinks=True, dirs_exist_ok=True)

    def partial(self, index: int) -> list[str]:
        """What is wrong with the files of a step that has not ended: none may be neither old nor new."""
        return results.partial(self.work, self.digests[index], self.digests[index + 1])

    def differences(self, index: int) -> list[str]:
        """What differs after a step from its undisturbed results."""
        return results.differences(self.digests[index + 1], self.work)
