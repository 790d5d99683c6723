"""Checks and repairs the environment tools/venv; run it with tools/venv/bin/python.

Packages that differ from tools/requirements.txt (missing, wrong version, damaged, or not importable) are reinstalled
from it with hashes and without resolving dependencies; an empty environment is filled. Then reports threads, GPU and
disk. Exit status 0, or 1 with one line for each remaining problem.

Only the standard library and pip are needed to start.
"""

import argparse
import csv
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "tools" / "requirements.txt"
OLDEST, NEWEST = (3, 11), (3, 14)
FREE_GB = 2.0  # dumps, checkpoints and figures of the mini recipe with room to spare

# Packages that the project imports, and their modules; torchaudio after torch, whose library it loads.
MODULES = {
    "numpy": "numpy", "scipy": "scipy.signal", "torch": "torch", "torchaudio": "torchaudio.functional",
    "scikit-learn": "sklearn", "matplotlib": "matplotlib.figure", "pyyaml": "yaml", "soundfile": "soundfile",
    "numba": "numba", "soxr": "soxr", "kaldiio": "kaldiio", "sentencepiece": "sentencepiece",
    "tensorboard": "torch.utils.tensorboard", "pydantic": "pydantic", "safetensors": "safetensors.torch",
    "tqdm": "tqdm", "espeakng-loader": "espeakng_loader", "pytest": "pytest", "hypothesis": "hypothesis",
    "playwright": "playwright",
}  # fmt: skip

# Run in a separate process, since a library that failed to load cannot be loaded again after repair.
TRY_IMPORTS = """
import importlib, json, sys
failed = {}
for package, module in json.loads(sys.argv[1]).items():
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        text = (str(error).strip().splitlines() or ["no message"])[0][:200]
        failed[package] = f"import {module}: {type(error).__name__}: {text}"
print(json.dumps(failed))
"""


@dataclass(frozen=True)
class Pin:
    """One package of the lock: its version and its lines, with hashes."""

    version: str
    lines: str


def read_lock(path: Path = LOCK) -> dict[str, Pin]:
    """Name -> pin of the packages that the lock requires on this machine, by their markers."""
    from pip._vendor.packaging.requirements import Requirement  # the one parser that every environment has

    pins = {}
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.M)
    for lines in re.split(r"\n(?=\S)", text.strip()):
        requirement = Requirement(lines.split("--hash")[0].strip(" \\\n"))
        if requirement.marker is None or requirement.marker.evaluate():
            pins[canonical(requirement.name)] = Pin(next(iter(requirement.specifier)).version, lines)
    return pins


def canonical(name: str) -> str:
    """A package's name as the lock writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, importlib.metadata.Distribution]:
    """The packages of this environment; one whose metadata has no name (interrupted install) is named by its folder."""
    found = {}
    for distribution in importlib.metadata.distributions(path=[*sys.path]):
        path = Path(getattr(distribution, "_path", ""))
        if path.suffix == ".dist-info" and Path(sys.prefix) in path.parents:
            found.setdefault(canonical(path.stem.split("-")[0]), distribution)
    return found


def damaged(distribution: importlib.metadata.Distribution) -> bool:
    """Whether files of a package are missing or truncated."""
    record = distribution.read_text("RECORD")  # distribution.files leaves out what is missing, from Python 3.12 on
    if not record or not distribution.metadata["Name"]:
        return True
    for file, _, size in csv.reader(record.splitlines()):
        # Only a package's own files: pip rewrites scripts outside it, and compiled ones come and go.
        if not size or ".." in Path(file).parts or file.endswith(".pyc"):
            continue
        try:
            if os.stat(distribution.locate_file(file)).st_size != int(size):
                return True
        except OSError:
            return True
    return False


def differences(pins: dict[str, Pin]) -> dict[str, str]:
    """Name -> problem, of the packages that differ from the lock."""
    found, wrong = installed(), {}
    for name, pin in pins.items():
        if name not in found:
            wrong[name] = "not installed"
        elif damaged(found[name]):
            wrong[name] = "files are missing or truncated"
        elif found[name].version.split("+")[0] != pin.version:  # 2.11.0+cpu is the same release
            wrong[name] = f"version {found[name].version}, the lock has {pin.version}"
    return wrong


def failing_imports() -> dict[str, str]:
    """Package -> error, of packages that cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-c", TRY_IMPORTS, json.dumps(MODULES)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):  # a library ended the process
        return dict.fromkeys(MODULES, f"importing all packages ended with status {done.returncode}")


def pip(*arguments: str) -> None:
    """Runs pip with our output; failures show up in the next check."""
    subprocess.run([sys.executable, "-m", "pip", "install", "--progress-bar", "off", *arguments], check=False)


def install(pins: dict[str, Pin], names: list[str]) -> None:
    """Installs packages as pinned in the lock."""
    found = installed()
    for name in names:  # without its metadata, pip does not take a damaged package for installed
        if name in found and damaged(found[name]):
            shutil.rmtree(found[name]._path)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text("".join(pins[name].lines + "\n" for name in names), encoding="utf-8")
        pip("--require-hashes", "--no-deps", "--only-binary", ":all:", "--force-reinstall", "-r", str(wanted))
    importlib.invalidate_caches()


def repair(pins: dict[str, Pin]) -> dict[str, str]:
    """Installs packages that differ from the lock or cannot be imported; returns the remaining problems."""
    wrong = differences(pins)
    if wrong:
        for name, what in wrong.items():
            print(f"installing  {name}: {what}", flush=True)
        install(pins, list(wrong))
        wrong = differences(pins)
    if not wrong and (wrong := failing_imports()):
        for name, what in wrong.items():
            print(f"installing  {name}: {what}", flush=True)
        install(pins, list(wrong))
        wrong = differences(pins) | failing_imports()
    return wrong


def place_of_project() -> Path | None:
    """The checkout that `import speechlvm` imports."""
    code = "import speechlvm; print(speechlvm.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()).resolve().parents[1] if done.returncode == 0 else None


def check_project() -> str | None:
    """Checks that the package is importable from this checkout; installs it if not."""
    if place_of_project() != ROOT:
        print(f"installing  speechlvm: not installed from {ROOT}", flush=True)
        pip("--no-deps", "--no-build-isolation", "-e", str(ROOT))
    place = place_of_project()
    return None if place == ROOT else f"speechlvm is imported from {place}, not from {ROOT}; unset PYTHONPATH"


def describe_torch() -> list[str]:
    """torch's version, threads and GPU."""
    import torch

    threads = torch.get_num_threads()
    facts = [f"torch {torch.__version__}", f"{threads} of {os.cpu_count()} CPUs"]
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        torch.ones(2, device="cuda").sum().item()
        return [*facts, f"{len(devices)} x {', '.join(sorted(set(devices)))} (CUDA {torch.version.cuda})"]
    return [*facts, "no GPU"]


def check_disk() -> str | None:
    """Checks that the checkout is writable and has free space."""
    try:
        with tempfile.NamedTemporaryFile(dir=ROOT / "egs" if (ROOT / "egs").is_dir() else ROOT):
            pass
    except OSError as error:
        return f"cannot write in {ROOT}: {error.strerror}; move the checkout, or give --expdir and --dumpdir"
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    return None if free_gb >= FREE_GB else f"{free_gb:.1f} GB free at {ROOT}, {FREE_GB:g} GB required; free some space"


def main() -> int:
    """Checks, repairs, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    python = f"python {platform.python_version()}"
    if Path(sys.prefix).resolve() != ROOT / "tools" / "venv":
        print(f"check_install: {sys.executable} is not in tools/venv; use tools/venv/bin/python", file=sys.stderr)
        return 1
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        print(
            f"check_install: {python} at {sys.executable}: 3.{OLDEST[1]} to 3.{NEWEST[1]} are supported; "
            "set PYTHON to one of them, remove tools/venv and run `bash tools/setup.sh`",
            file=sys.stderr,
        )
        return 1
    wrong = [f"{name}: {what}" for name, what in repair(read_lock()).items()]
    if not wrong:
        wrong = [problem for problem in (check_project(), check_disk()) if problem]
    for problem in wrong:
        print(f"check_install: {problem}", file=sys.stderr)
    if wrong:
        return 1
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    print(", ".join(["ok: " + python, *describe_torch(), f"{free_gb:.0f} GB free"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
