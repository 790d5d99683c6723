"""Models from outside this project: `model: my_package.my_module:MyModel` in a configuration.

Configurations may come from anyone, so they can name a class but not where its code is. `SPEECHLVM_MODELS`, paths of
packages or of single modules separated by colons, lists the code that the user trusts; nothing else is imported.
"""

from __future__ import annotations

import inspect
import os
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

from speechlvm.utils.errors import ConfigError
from speechlvm.utils.settings import Settings

if TYPE_CHECKING:
    from speechlvm.models.base import Model

ALLOWED = "SPEECHLVM_MODELS"


def outside_class(name: str) -> type[Model]:
    """The class that `package.module:Class` names.

    Raises:
        ConfigError: its package is not allowed, cannot be imported, or the class is not a complete model.
    """
    module, _, attribute = name.partition(":")
    package = module.partition(".")[0]
    paths = [Path(path).absolute() for path in os.environ.get(ALLOWED, "").split(os.pathsep) if path]
    path = next((path for path in paths if path.name.removesuffix(".py") == package), None)
    if path is None:
        raise ConfigError(
            f"model: '{name}' is code from outside speechlvm, which was not imported; if you trust it, "
            f"export {ALLOWED}=/path/to/{package or 'my_package'}"
        )
    try:
        if package not in sys.modules:
            _import_from(path, package)
        found = getattr(import_module(module), attribute, None)
    except Exception as error:  # whatever the code raises
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(f"model: '{name}' cannot be imported from {path} ({reason})") from error
    if lacking := _lacking(found):
        raise ConfigError(f"model: '{name}' in {path} {lacking}; see MODELS.md")
    return found


def _import_from(path: Path, package: str) -> None:
    """Import exactly this package, even if another one of the same name could be imported."""
    file = path if path.suffix == ".py" else path / "__init__.py"
    specification = spec_from_file_location(package, file)
    sys.modules[package] = module_from_spec(specification)
    try:
        specification.loader.exec_module(sys.modules[package])
    except BaseException:
        del sys.modules[package]
        raise


def _lacking(found: object) -> str:
    """What an object lacks to be a model, in words; "" if nothing."""
    from speechlvm.models.base import LatentModel, Model

    if found is None:
        return "does not exist"
    if not (inspect.isclass(found) and issubclass(found, Model)):
        return "is not a subclass of speechlvm.models.base.Model"
    if inspect.isabstract(found):
        return f"lacks {', '.join(sorted(found.__abstractmethods__))}"
    settings = getattr(found, "Config", None)
    if not (inspect.isclass(settings) and issubclass(settings, Settings)):
        return "lacks Config, a subclass of speechlvm.utils.settings.Settings"
    if not isinstance(getattr(found, "reference", None), str):
        return "lacks reference, the paper that describes it"
    expected = "elbo" if issubclass(found, LatentModel) else "exact"
    if getattr(found, "bound", None) != expected:
        return f"has no bound = '{expected}'"
    return ""
