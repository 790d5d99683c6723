"""Programs of recipes, run as commands but in this process, as starting Python takes longer than their work."""

import contextlib
import importlib.util
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from speechlvm.bin.cli import run_main


def load(path: Path) -> ModuleType:
    """The program egs/<recipe>/local/<stem>.py as module <recipe>_<stem>; modules beside it keep their names."""
    name = f"{path.parents[1].name}_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = importlib.util.module_from_spec(specification)
    sys.path.insert(0, str(path.parent))
    try:
        specification.loader.exec_module(sys.modules[name])
    finally:
        sys.path.remove(str(path.parent))
    return sys.modules[name]


def call(main: Callable[[list[str]], int | None], *words: object) -> subprocess.CompletedProcess:
    """What a program with these words does: its exit status and all that it prints."""
    arguments, output, errors = [str(word) for word in words], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            run_main(lambda: main(arguments))
        except SystemExit as end:
            status = end.code
    return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())
