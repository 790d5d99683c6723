"""Origin of an experiment: its settings, seed and data, recorded before training and compared when it resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechlvm.experiment.config import ExperimentConfig, dump_yaml
from speechlvm.experiment.load import config_of
from speechlvm.utils.errors import ConfigError
from speechlvm.utils.files import atomic_write, hash_value, mark_undone, read_json, write_json


def record_origin(directory: Path, config: ExperimentConfig, seed: int, train: Path, valid: Path) -> None:
    """Write config.yaml and origin.json, and mark the experiment as incomplete.

    Args:
        directory: directory of the experiment.
        config: resolved configuration.
        seed: seed of weights, data order and noise.
        train: dump of the training set.
        valid: dump of the validation set.

    Raises:
        ConfigError: the directory holds another experiment; the message names everything that differs.
    """
    path = directory / "origin.json"
    origin = {"seed": seed, "train_set": train.name, "train": data_hash(train), "valid": data_hash(valid)}
    changed = []
    if (directory / "config.yaml").exists():
        changed += _differences(config_of(directory).frozen(), config.frozen())
    if path.exists():
        names = {"train": f"data in {train}", "valid": f"data in {valid}"}
        old, new = ({names.get(key, key): value for key, value in each.items()} for each in (read_json(path), origin))
        changed += _differences(old, new)
    if changed:
        raise ConfigError(
            f"{directory}: the experiment exists with other settings: {', '.join(changed)}; "
            "choose another name with --tag, or remove the directory"
        )
    mark_undone(directory)
    with atomic_write(directory / "config.yaml") as stream:
        stream.write(dump_yaml(config))
    write_json(path, origin)


def data_hash(dump: Path) -> str:
    """Hash of all frames of a dump and their format, independent of its path."""
    info = read_json(dump / "info.json")
    return hash_value([info.get(key) for key in ("data_hash", "channels", "rate_hz")])


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            keys += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            keys.append(f"{prefix}{key} (was {a!r}, now {b!r})")
    return keys
