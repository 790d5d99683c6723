"""Models from outside: what is imported, from where, and how a class that is no model is refused."""

import sys

import pytest

from speechlvm.experiment.config import load_config
from speechlvm.models import model_class
from speechlvm.models.lstm import LSTM
from speechlvm.models.outside import ALLOWED
from speechlvm.utils.errors import ConfigError

CODE = """
from pathlib import Path
from speechlvm.models.base import Model
from speechlvm.models.lstm import LSTM
from speechlvm.models.vrnn import VRNN
from speechlvm.utils.settings import Settings

Path(__file__).with_name("imported").touch()


class Mine(LSTM):
    pass


class Unfinished(Model):
    Config, reference, bound = LSTM.Config, "", "exact"

    def forward(self):
        pass


class Nameless(LSTM):
    reference = None


class Unset(LSTM):
    Config = dict


class Unbounded(VRNN):
    bound = "exact"


number = 3
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a module in the working directory, from which anything could be imported."""
    folder = tmp_path / "outside_package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "models.py").write_text(CODE)
    (folder / "broken.py").write_text("import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in ("outside_package", "single")]:
        del sys.modules[name]


@pytest.mark.parametrize("others", ["", "elsewhere/another_package", "outside_package/models"])
def test_a_configuration_alone_imports_nothing(package, tiny_config, monkeypatch, others):
    monkeypatch.setenv(ALLOWED, others)
    path = tiny_config(("model: lstm", "model: outside_package.models:Mine"))
    with pytest.raises(ConfigError, match=r"tiny.yaml: model: 'outside_package.models:Mine' is code from outside"):
        load_config(path)
    assert "outside_package" not in sys.modules and not (package / "imported").exists()


def test_the_named_path_is_what_is_imported(package, tiny_config, tmp_path, monkeypatch):
    other = tmp_path / "elsewhere" / "outside_package"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("from speechlvm.models.lstm import LSTM as Mine\n")
    monkeypatch.setenv(ALLOWED, f"/nowhere/else:{other}/")
    config = load_config(tiny_config(("model: lstm", "model: outside_package:Mine")))
    assert model_class(config.model) is LSTM and config.model_conf["mlp_layers"] == 3
    assert sys.modules["outside_package"].__file__ == str(other / "__init__.py")


def test_a_module_of_its_own(package, tmp_path, monkeypatch):
    (tmp_path / "single.py").write_text(CODE)
    monkeypatch.setenv(ALLOWED, "single.py")
    assert issubclass(model_class("single:Mine"), LSTM)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models:Missing", "models:Missing' in .*outside_package does not exist; see MODELS.md"),
        ("models:number", "is not a subclass of speechlvm.models.base.Model"),
        ("models:Unfinished", "lacks _sample, initial_state;"),
        ("models:Nameless", "lacks reference"),
        ("models:Unset", "lacks Config, a subclass of"),
        ("models:Unbounded", "has no bound = 'elbo'"),
        ("broken:Mine", r"cannot be imported from .* \(ModuleNotFoundError: No module named 'nothing_of_this_name'\)"),
        ("none:Mine", "cannot be imported from .*No module named 'outside_package.none'"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(package, monkeypatch, name, message):
    monkeypatch.setenv(ALLOWED, str(package))
    with pytest.raises(ConfigError, match=message) as refused:
        model_class(f"outside_package.{name}")
    assert "\n" not in str(refused.value)


def test_a_path_that_does_not_exist(monkeypatch):
    monkeypatch.setenv(ALLOWED, "nowhere/lost_package")
    with pytest.raises(ConfigError, match=r"cannot be imported from .*nowhere/lost_package \(FileNotFoundError"):
        model_class("lost_package:Mine")
    assert "lost_package" not in sys.modules
