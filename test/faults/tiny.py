"""A recipe whose stages take seconds, and what it has written after each of them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import yaml
from imitations import timit

from faults import results
from faults.hooks import file_operations
from faults.processes import Running

ROOT = Path(__file__).resolve().parents[2]
STAGES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
MODEL = "vrnn"
CONFIG = {
    "model": MODEL,
    "model_conf": {"stack": 64, "latent": 4, "hidden": 8, "state": 8, "mlp_layers": 2},
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
        for name in ("uniform", "dmol", "flac", MODEL)
    ],
}
PATH_SH = """# shellcheck shell=bash
# Sourced: the environment of this recipe's programs, and what counts their file operations.

. utils/path.sh
export PYTHONPATH="${SPEECHLVM_TEST_PYTHONPATH:-}"
"""


def previous(stage: int) -> int:
    """The stage before; 0: none."""
    return max(number for number in (0, *STAGES) if number < stage)


class Tiny:
    """The recipe, its corpus, and copies of its results after each stage.

    What is written lies under `work`, whose path is part of what is written: results are compared within one `Tiny`.

    Attributes:
        operations: how many file operations a stage takes that nothing disturbs.
        digests: of files after a stage that nothing disturbed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root / "work"
        self.counter = root / "operations"  # one byte for each
        self.operations: dict[int, int] = {}
        self.digests: dict[int, dict[str, str]] = {0: {}}
        self.work.mkdir()
        for name in ("utils", "tools"):
            (root / name).symlink_to(ROOT / name)
        source, recipe = ROOT / "egs" / "timit", root / "egs" / "tiny"
        (recipe / "conf" / "tables").mkdir(parents=True)
        for script in ("run.sh", "cmd.sh", "db.sh"):
            shutil.copy(source / script, recipe)
        for folder in ("local", "utils"):
            (recipe / folder).symlink_to(source / folder)
        (recipe / "path.sh").write_text(PATH_SH)
        (recipe / "conf" / f"{MODEL}.yaml").write_text(yaml.safe_dump(CONFIG))
        (recipe / "conf" / "tables" / "tiny.yaml").write_text(yaml.safe_dump(TABLE))
        timit.make(root / "corpus")

    def start(self, stage: int, hold_at: int | None = None, output: str = "output") -> Running:
        """A stage, started; what it prints goes to the file `output` in `root`.

        With `hold_at` the file operations of all its programs together are counted, and the one with this number is
        held (0: none).
        """
        options = {
            "stage": stage, "stop_stage": stage, "datadir": self.work / "data", "dumpdir": self.work / "dump",
            "expdir": self.work / "exp", "timit": self.root / "corpus",
            "nj": 2 if stage in (2, 4) else 1, "nthreads": 1, "models": MODEL, "codings": "", "sample_seconds": 0.05,
            "latent_samples": 2, "compress_utterances": 2, "analysis_sets": "train valid test", "probe_minutes": "all",
            "probe_args": "--steps 3 --hidden 8 --seeds 1 --vocabulary 20",
        }  # fmt: skip
        words = [str(word) for option, value in options.items() for word in (f"--{option}", value)]
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        python_path = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
        if hold_at is not None:
            self.counter.write_bytes(b"")
            python_path.insert(0, str(Path(file_operations.__file__).parent))
            environment[file_operations.ENVIRONMENT] = file_operations.describe(
                self.work, hold_at, "hold", self.counter
            )
        environment["SPEECHLVM_TEST_PYTHONPATH"] = ":".join(python_path)
        return Running(["bash", "run.sh", *words], self.root / "egs" / "tiny", environment, self.root / output)

    def run(self, stage: int) -> tuple[int, str]:
        """Exit status and output of a stage that nothing disturbs."""
        running = self.start(stage, output="undisturbed")
        return running.wait(), running.text()

    def reach(self, stage: int) -> None:
        """Have the undisturbed results of a stage, and of those before it."""
        if stage in self.digests:
            return
        self.reach(previous(stage))
        self.restore(previous(stage))
        running = self.start(stage, hold_at=0)
        assert running.wait() == 0, running.text()[-3000:]
        self.operations[stage] = self.counter.stat().st_size
        shutil.copytree(self.work, self._copy(stage), symlinks=True)
        self.digests[stage] = results.digests(self.work)

    def _copy(self, stage: int) -> Path:
        return self.root / "after" / str(stage)

    def restore(self, stage: int) -> None:
        """`work` as it was after a stage, to the times of files."""
        shutil.rmtree(self.work)
        if stage:
            shutil.copytree(self._copy(stage), self.work, symlinks=True)
        else:
            self.work.mkdir()

    def times(self) -> dict[str, int]:
        """When files were last written."""
        return {name: path.stat().st_mtime_ns for name, path in results.files(self.work).items()}

    def partial(self, stage: int) -> list[str]:
        """What is wrong with the files of a stage that was stopped: none may be neither old nor new."""
        return results.partial(self.work, self.digests[previous(stage)], self.digests[stage])

    def differences(self, stage: int) -> list[str]:
        """What differs after a stage from its undisturbed results."""
        return results.differences(self.digests[stage], self.work)
