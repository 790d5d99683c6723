"""A folder of audio files, read as a data directory whose utterances are the files."""

import re
from pathlib import Path

from speechlvm.data.audio import audio_info, check_length
from speechlvm.data.kaldi.directory import DataDirectory
from speechlvm.data.kaldi.tables import unsafe_id
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import files_below

SUFFIXES = (".wav", ".flac", ".sph")


def load_folder(folder: Path) -> DataDirectory:
    """A data directory of all audio files at any depth; their format is checked when they are read.

    Ids are paths below the folder, with '-' for '/' and '_' for characters that ids cannot have. Each file is a
    separate speaker.

    Raises:
        UserError: no audio files, a header cannot be read, or two files would have the same id.
    """
    files: dict[str, Path] = {}
    for file in files_below(folder):
        if file.suffix.lower() not in SUFFIXES:
            continue
        path = file.relative_to(folder).with_suffix("").as_posix()
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.replace("/", "-")).lstrip("-._")
        if reason := unsafe_id(name):
            raise UserError(f"{file}: {reason}")
        if name in files:
            raise UserError(f"{file}: has the id of {files[name]}, {name}; rename one")
        files[name] = file.resolve()
    if not files:
        raise UserError(f"{folder}: neither a data directory (no utt2spk) nor a folder of {', '.join(SUFFIXES)} files")
    infos = {name: audio_info(file) for name, file in files.items()}
    for info in infos.values():
        check_length(info)
    return DataDirectory(
        utt2spk={name: name for name in files},
        wav=files,
        num_samples={name: info.num_samples for name, info in infos.items()},
    )
