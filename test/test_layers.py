"""The layers of the package, a contract of import-linter in pyproject.toml, and no imports in circles."""

import subprocess
import sys
from pathlib import Path

from grimp import build_graph

ROOT = Path(__file__).resolve().parents[1]


def test_imports_point_downwards():
    """In a process of its own, as import-linter disables all loggers of this one."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_modules_import_each_other():
    graph = build_graph("speechlvm", cache_dir=None)
    circles = {
        f"{module} <-> {imported}"
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if module in graph.find_upstream_modules(imported)
    }
    assert circles == set()
