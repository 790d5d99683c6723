"""Lossless codecs that are programs: a template of each command says how they are called."""

from __future__ import annotations

import math
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from pydantic import field_validator

from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.files import bytes_in
from speechlvm.utils.settings import Settings, load_yaml, validated

WAV, FILE = "audio.wav", "coded"  # what {wav} and {file} stand for, in a folder of the utterance's own


class Commands(Settings):
    """How to call the programs of a codec: words as in a shell, which does not see them.

    Attributes:
        encode: makes files from {wav}; their bytes count.
        decode: makes {wav} from them.
        version: prints the version; "": unknown.
    """

    encode: str
    decode: str
    version: str = ""

    @field_validator("encode", "decode", "version")
    @classmethod
    def _has_words(cls, command: str) -> str:
        if not shlex.split(command):
            raise ValueError("expected a command")
        return command

    @property
    def missing(self) -> str:
        """The first program that is not installed; "" if all are."""
        programs = [shlex.split(command)[0] for command in (self.encode, self.decode)]
        return next((program for program in programs if shutil.which(program) is None), "")


def load_codecs(path: Path) -> dict[str, Commands]:
    """The codecs of a YAML file, by name.

    Raises:
        ConfigError: a name cannot be that of a directory, or a codec lacks a command.
    """
    codecs = {}
    for name, commands in load_yaml(path).items():
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            raise ConfigError(f"{path}: codec '{name}': expected letters, digits, '_', '.' and '-'")
        codecs[name] = validated(Commands, commands, f"{path}: {name}")
    return codecs


class ExternalCodec:
    """Counts the bytes that a codec makes of each utterance, all headers included, after it has decoded them.

    Args:
        name: of the codec.
        commands: that encode and decode.
        rate_hz: sampling rate of the WAV files.
    """

    bound = "code-length"
    coding = "linear"
    parameters = 0

    def __init__(self, name: str, commands: Commands, rate_hz: int) -> None:
        self.name, self.commands, self.rate_hz = name, commands, rate_hz

    def bytes(self, pcm: np.ndarray) -> int:
        """Bytes of all files that encoding makes of int16 PCM (T,).

        Raises:
            UserError: a program is missing or fails, or the decoded samples differ.
        """
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / WAV
            soundfile.write(wav, pcm, self.rate_hz, subtype="PCM_16")
            self._run(self.commands.encode, folder)
            wav.unlink(missing_ok=True)  # what decoding does not write must not be taken for its result
            size = bytes_in(Path(folder))
            self._run(self.commands.decode, folder)
            try:
                decoded, _ = soundfile.read(wav, dtype="int16")
            except soundfile.SoundFileError as error:
                raise UserError(f"{self.name}: `{self.commands.decode}` wrote no WAV file to {{wav}}") from error
        if not np.array_equal(decoded, pcm):
            raise UserError(
                f"{self.name}: `{self.commands.decode}` gives other samples than were encoded; expected a lossless "
                "codec; correct its commands or remove it from codecs.yaml"
            )
        return size

    def nats(self, pcm: np.ndarray) -> float:
        """Minus the code length of int16 PCM (T,), in nats."""
        return -8.0 * self.bytes(pcm) * math.log(2.0)

    def version(self) -> str:
        """The first line that the command for it prints."""
        if not self.commands.version:
            return ""
        with tempfile.TemporaryDirectory() as folder:
            return self._run(self.commands.version, folder).partition("\n")[0]

    def _run(self, command: str, folder: str) -> str:
        """What a command prints."""
        words = [word.replace("{wav}", WAV).replace("{file}", FILE) for word in shlex.split(command)]
        program = shutil.which(words[0])
        if program is None:
            raise UserError(f"{self.name}: the program {words[0]} is not installed on this machine; install it")
        done = subprocess.run(
            [Path(program).absolute(), *words[1:]],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise UserError(": ".join([f"{self.name}: `{command}` failed with status {done.returncode}", *last]))
        return done.stdout
