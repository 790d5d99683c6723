"""Speech with the times of its phonemes and words from libespeak-ng, through its C interface.

The shared library and its voices come in the wheel ``espeakng-loader``. The library keeps its state (oscillator phase,
random noise) from one utterance to the next, so that an utterance depends on those before it: equal output needs a
fresh process and the same utterances in the same order.
"""

import ctypes
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechlvm.utils.errors import UserError

# Constants of the library's public header, speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_PHONEME_EVENTS, INITIALIZE_DONT_EXIT = 0x0001, 0x8000
CHARS_UTF8, ENDPAUSE = 1, 0x1000
POSITION_CHARACTER = 1
PARAMETER_RATE, PARAMETER_PITCH, PARAMETER_RANGE = 1, 3, 4
EVENT_END_OF_LIST, EVENT_WORD, EVENT_PHONEME = 0, 1, 7
RAND_SEED = 1
RATE_HZ = 22050


class _Identity(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # in ms: too coarse, so `sample` is used
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("identity", _Identity),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Utterance:
    """Synthesised speech.

    Attributes:
        samples: int16 (num_samples,) at RATE_HZ.
        phonemes: (first sample, the synthesiser's mnemonic without stress marks), in order of time.
        words: (first sample, text), in order of time; words spoken as one are joined by ``_``.
    """

    samples: np.ndarray
    phonemes: list[tuple[int, str]]
    words: list[tuple[int, str]]


def locate() -> tuple[Path, Path]:
    """The shared library and the directory of its data.

    Raises:
        UserError: the wheel is not installed.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise UserError(f"espeakng-loader: cannot be imported ({error}); run: pip install espeakng-loader") from None
    return Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())


class Synthesiser:
    """One voice of the library, which exists once in a process."""

    def __init__(self, accent: str, variant: str, words_per_minute: int, pitch: int, pitch_range: int) -> None:
        """Chooses a voice.

        Args:
            accent: name of a language of the library ("en-us", ...).
            variant: name of a voice variant ("f1", "m3", ...).
            words_per_minute: 80 to 450.
            pitch: 0 to 99, 50 is the variant's own.
            pitch_range: 0 to 99, 50 is normal, 0 is monotone.

        Raises:
            UserError: the library cannot be loaded or lacks the voice.
        """
        library_path, data_path = locate()
        if not (data_path / "voices" / "!v" / variant).is_file():
            raise UserError(f"{data_path}: no voice variant '{variant}'; install the pinned espeakng-loader")
        try:
            self._library = ctypes.CDLL(str(library_path))
        except OSError as error:
            raise UserError(f"{library_path}: cannot be loaded ({error}); reinstall espeakng-loader") from None
        # The library cuts data paths at 160 bytes, so it gets a short one.
        with tempfile.TemporaryDirectory() as short:
            link = Path(short) / "espeak-ng-data"
            link.symlink_to(data_path)
            options = INITIALIZE_PHONEME_EVENTS | INITIALIZE_DONT_EXIT
            rate_hz = self._library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, str(link).encode(), options)
            if rate_hz != RATE_HZ:
                raise UserError(f"{data_path}: libespeak-ng cannot use its data ({rate_hz}); reinstall espeakng-loader")
            if self._library.espeak_SetVoiceByName(f"{accent}+{variant}".encode()) != 0:
                raise UserError(f"{data_path}: no voice '{accent}+{variant}'; install the pinned espeakng-loader")
        settings = {PARAMETER_RATE: words_per_minute, PARAMETER_PITCH: pitch, PARAMETER_RANGE: pitch_range}
        for parameter, value in settings.items():
            self._library.espeak_SetParameter(parameter, value, 0)
        self._callback = _CALLBACK(self._receive)  # the library keeps only a pointer to it
        self._library.espeak_SetSynthCallback(self._callback)
        # Breath noise comes from the library's own generator, which it seeds with the time, and from the C library's.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(RAND_SEED))
        ctypes.CDLL(None).srand(RAND_SEED)
        self._blocks: list[np.ndarray] = []
        self._events: list[tuple[int, int, int, str]] = []

    def speak(self, text: str) -> Utterance:
        """Synthesises one sentence of plain ASCII text."""
        self._blocks.clear()
        self._events.clear()
        data = text.encode("ascii") + b"\0"
        flags = CHARS_UTF8 | ENDPAUSE
        self._library.espeak_Synth(data, len(data), 0, POSITION_CHARACTER, 0, flags, None, None)
        phonemes = [(sample, name.strip("',%=")) for kind, sample, _, name in self._events if kind == EVENT_PHONEME]
        starts = [(sample, position) for kind, sample, position, _ in self._events if kind == EVENT_WORD]
        words = []
        for index, (sample, position) in enumerate(starts):
            end = starts[index + 1][1] - 1 if index + 1 < len(starts) else len(text)
            words.append((sample, "_".join(word.strip(".,?;!").lower() for word in text[position - 1 : end].split())))
        return Utterance(np.concatenate(self._blocks), phonemes, words)

    def _receive(self, samples, count: int, events) -> int:
        if samples and count:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != EVENT_END_OF_LIST:
            event = events[index]
            name = event.identity.string.decode() if event.type == EVENT_PHONEME else ""
            self._events.append((event.type, event.sample, event.text_position, name))
            index += 1
        return 0
