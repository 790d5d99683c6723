"""Exported models: a folder that suffices to rebuild a model and cannot run code.

    model.safetensors     weights
    config.yaml           resolved configuration, as an experiment has it
    observation.json      coding and statistics of the training set (`Observation.to_dict`)
    results/<set>.json    result.json of each score
    README.md             model card, for people; the one file that may be edited
    manifest.json         format, origin of the weights, and the SHA-256 of every other file

`speechlvm.experiment.load.load_experiment` reads such a folder as it reads an experiment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import StringConstraints
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from speechlvm import __version__
from speechlvm.experiment.config import dump_yaml, load_config
from speechlvm.experiment.trained import Experiment, Provenance, Saved
from speechlvm.observation import Observation
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import atomic_directory, atomic_write, hash_file, read_json, write_json
from speechlvm.utils.settings import Settings, check_format, checked

FORMAT = 1
MANIFEST, CARD = "manifest.json", "README.md"
WEIGHTS, CONFIG, OBSERVATION = "model.safetensors", "config.yaml", "observation.json"

_Name = Annotated[str, StringConstraints(pattern=rf"^({WEIGHTS}|{CONFIG}|{OBSERVATION}|results/[^/]+\.json)$")]


class Manifest(Settings):
    """Contents of manifest.json.

    Attributes:
        format: format of the folder.
        speechlvm: version that wrote it.
        name: name of the experiment.
        train_set: name of the training set.
        provenance: origin of the weights.
        files: name -> SHA-256, of all files but the card and the manifest itself.
        inputs: everything that determines the contents.
    """

    format: int
    speechlvm: str
    name: str
    train_set: str
    provenance: Provenance
    files: dict[_Name, str]
    inputs: dict[str, Any]


def is_export(folder: Path) -> bool:
    """Whether a directory is an export, and not an experiment."""
    return (Path(folder) / MANIFEST).exists()


def name_of(directory: Path) -> str:
    """Name of an experiment, whose directory is NAME/seed<k> or NAME, or of an exported one."""
    if is_export(directory):
        return read_manifest(directory).name
    path = Path(directory).absolute()
    return (path.parent if re.fullmatch(r"seed\d+", path.name) else path).name


def is_exported(folder: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether a folder is a complete export of exactly these inputs."""
    if not is_export(folder):
        return False
    try:
        manifest = read_manifest(folder)
        return manifest.inputs == json.loads(json.dumps(inputs)) and (Path(folder) / CARD).exists()
    except UserError:
        return False


def write_export(
    folder: Path, experiment: Experiment, results: Mapping[str, Any], card: str, inputs: Mapping[str, Any]
) -> None:
    """Write an export, complete or not at all.

    Args:
        folder: folder to create.
        experiment: the experiment to export.
        results: name -> contents of a result.json.
        card: model card in Markdown.
        inputs: everything that determines the contents.

    Raises:
        UserError: the folder exists, or cannot be written.
    """
    weights = experiment.model.state_dict()
    own = {key: value.clone(memory_format=torch.contiguous_format) for key, value in weights.items()}
    with atomic_directory(Path(folder)) as target:
        with atomic_write(target / WEIGHTS, "wb") as stream:
            stream.write(save(own, {"format": "pt"}))
        with atomic_write(target / CONFIG) as stream:
            stream.write(dump_yaml(experiment.config))
        with atomic_write(target / CARD) as stream:
            stream.write(card)
        write_json(target / OBSERVATION, experiment.observation.to_dict())
        for name, result in results.items():
            write_json(target / "results" / f"{name}.json", result)
        names = [WEIGHTS, CONFIG, OBSERVATION, *(f"results/{name}.json" for name in results)]
        manifest = Manifest(
            format=FORMAT,
            speechlvm=__version__,
            name=experiment.name,
            train_set=experiment.train_set,
            provenance=experiment.provenance,
            files={name: hash_file(target / name) for name in names},
            inputs=dict(inputs),
        )
        write_json(target / MANIFEST, manifest.model_dump())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an export; the files are checked against it.

    Raises:
        UserError: not an export, a newer format, or a file is missing or altered.
    """
    path = Path(folder) / MANIFEST
    value = read_json(path)
    check_format(value, FORMAT, str(path))
    manifest = checked(Manifest, value, str(path))
    for name, checksum in manifest.files.items():
        if hash_file(path.parent / name) != checksum:
            raise UserError(f"{path.parent / name}: not the file in {MANIFEST} (truncated or altered); copy it again")
    return manifest


def read_export(folder: Path) -> Saved:
    """The model of an export.

    Raises:
        UserError: a file is missing, altered, malformed, or of a newer format.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    return Saved(
        manifest.name,
        manifest.train_set,
        load_config(folder / CONFIG),
        read_weights(folder / WEIGHTS),
        Observation.from_dict(read_json(folder / OBSERVATION), source=str(folder / OBSERVATION)),
        manifest.provenance,
        str(folder / WEIGHTS),
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        UserError: not a safetensors file.
    """
    try:
        return load(Path(path).read_bytes())
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path}: not a safetensors file ({error}); nothing was loaded; copy it again") from error
