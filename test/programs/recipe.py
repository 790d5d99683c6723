"""A recipe with its shell side only: its programs record how they are called."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Takes the place of python: notes its arguments, and does what the shared stages expect of the programs.
FAKE = """#!{python}
import json, os, sys, time
from pathlib import Path
here = Path(__file__).resolve().parent
arguments = sys.argv[1:]
with open(here / "calls", "a") as calls:
    calls.write(json.dumps([arguments, os.environ.get("OMP_NUM_THREADS", "")]) + "\\n")
program = arguments[1].rpartition(".")[2] if arguments[0] == "-m" else Path(arguments[0]).name
value = dict(zip(arguments, arguments[1:]))
if (here / "behave").exists():
    victim, what = (here / "behave").read_text().split(None, 1)
    if program == victim and "--check" not in arguments:
        if what == "wait":
            import signal
            signal.signal(signal.SIGTERM, lambda *_: (print("stopping", flush=True), sys.exit(75)))
            (here / "waiting").touch()
            time.sleep(60)
        if what == "meet":  # ends when another one runs at the same time
            end = time.monotonic() + 60
            running = lambda: [c for c in open(here / "calls") if '"--config"' in c and '"--check"' not in c]
            while len(running()) < 2 and time.monotonic() < end:
                time.sleep(0.02)
            what = "3" if time.monotonic() < end else "4"
        print("the reason is written here", file=sys.stderr)
        sys.exit(int(what))
if "--check" in arguments:
    sys.exit(0 if (Path(value.get("--out", "none")) / "done").exists() else 1)
if program == "codecs":
    print("squeeze\\nabsent pack")
elif program == "likelihoods":
    print("| model | bpf |\\n|---|---|\\n| some | 1.0 |")
elif program == "report":
    Path(value["--out"]).write_text("# Results\\n\\n| model | bpf |\\n|---|---|\\n| some | 1.0 |\\n")
elif "--job" not in arguments and program in "dump train score baseline spectra latents probe roundtrip".split():
    Path(value["--out"]).mkdir(parents=True, exist_ok=True)
    (Path(value["--out"]) / "done").touch()
    (Path(value["--out"]) / "config.yaml").write_text("coding: mulaw")
"""


# In place of mini's own settings, which are for speed.
USUAL = ["--models", "a b", "--nj", "2", "--nthreads", "0", "--analyses", "", "--probe_minutes", "10 60 all"]


class Tree:
    """A copy of the shell side, in a path with blanks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recipe = root / "egs" / "mini"
        for folder in ("utils", "egs/mini"):
            shutil.copytree(
                ROOT / folder,
                root / folder,
                symlinks=True,
                ignore=shutil.ignore_patterns("data", "dump", "exp", "smoke", "conf"),
            )
        (root / "utils" / "validate_data_dir.sh").write_text('#!/bin/sh\nexec python validate "$@"\n', encoding="utf-8")
        for name in ("a", "b", "c", "a_c"):
            (self.recipe / "conf" / "tables").mkdir(parents=True, exist_ok=True)
            (self.recipe / "conf" / f"{name}.yaml").write_text("", encoding="utf-8")
        (self.recipe / "conf" / "tables" / "T1.yaml").write_text(
            "rows:\n  - {s: 1, experiment: uniform}\n  - {s: 1, experiment: c, published: {}}\n"
            "  - {s: 1, experiment: dmol, root: ../other/exp/train}\n",
            encoding="utf-8",
        )
        self.python = root / "tools" / "venv" / "bin" / "python"
        self.python.parent.mkdir(parents=True)
        self.python.write_text(FAKE.format(python=sys.executable), encoding="utf-8")
        self.python.chmod(0o755)
        (self.python.parent / "python3").symlink_to(sys.executable)  # runs the job runner
        (root / "tools" / "setup.sh").write_text(': >"${0%/*}/called"\n', encoding="utf-8")

    def behave(self, text: str) -> None:
        (self.python.parent / "behave").write_text(text, encoding="utf-8")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", self.recipe / "run.sh", *USUAL, *arguments],
            cwd="/",
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=1200)
        return process.returncode, out, err

    def calls(self, checks: bool = False) -> list[list[str]]:
        """Arguments of all calls since the last time this was asked; those that only ask what is complete if wanted."""
        path = self.python.parent / "calls"
        if not path.exists():
            return []
        calls = [json.loads(line)[0] for line in path.read_text(encoding="utf-8").splitlines()]
        path.unlink()
        return [call for call in calls if checks or "--check" not in call]

    def summary(self, checks: bool = False) -> list[str]:
        """Program and step of each call; jobs that ran side by side in their order."""
        lines = []
        for call in self.calls(checks):
            program = call[1].rpartition(".")[2] if call[0] == "-m" else Path(call[0]).name
            value = dict(zip(call, call[1:], strict=False))
            step = f" job {value['--job']}" if "--job" in value else ""
            step += "".join(f" {word[2:]}" for word in ("--check", "--merge") if word in call)
            where = value.get("--out", "")
            lines.append(f"{program}{step} {where}".strip())
        return lines
