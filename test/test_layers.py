"""The layers of the package, a contract of import-linter in pyproject.toml, and no imports in circles."""

from pathlib import Path

from grimp import build_graph
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[1]


def test_imports_point_downwards(capsys):
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    assert status == 0, capsys.readouterr().out


def test_no_modules_import_each_other():
    graph = build_graph("speechlvm", cache_dir=None)
    circles = {module for module in graph.modules if module in graph.find_downstream_modules(module)}
    assert circles == set()
