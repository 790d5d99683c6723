"""Sentencepiece units of transcripts: byte-pair encoding, so training is deterministic and vocabularies are nested."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence

import sentencepiece

from speechlvm.latents.labelled import Unsuitable
from speechlvm.latents.probes import USUAL_VOCABULARY
from speechlvm.utils.errors import ConfigError

UNKNOWN = 1  # the only piece that is not from the text
LONGEST_BYTES = 1 << 20  # longer lines would be left out of the training
LONGEST_PIECE = 16  # sentencepiece's default; pieces are parts of words
SPACE = "▁"


def words_of(text: str) -> list[str]:
    """Words as counted in error rates: lower case, without punctuation except apostrophes."""
    return re.sub(r"[^\w']|_", " ", text.casefold()).split()


def train_units(texts: Iterable[str], vocabulary: int | None) -> bytes:
    """Train a sentencepiece model on transcripts; deterministic.

    Args:
        texts: transcripts of the training set only.
        vocabulary: number of units, including sentencepiece's <unk>; None: the number nearest to `USUAL_VOCABULARY`
            that the text supports.

    Raises:
        Unsuitable: the text has no words.
        ConfigError: the text does not support this vocabulary; the message gives the supported range.
    """
    lines = [" ".join(words_of(text)) for text in texts]
    characters = set("".join(lines)) - {" "}
    if not characters:
        raise Unsuitable("probe 'units': the transcripts of the training set have no words; give others")
    least = len(characters | {SPACE}) + UNKNOWN
    asked = max(least, USUAL_VOCABULARY) if vocabulary is None else vocabulary
    if asked >= least:
        model = _train(lines, asked)
        if vocabulary is None or load_units(model).get_piece_size() == asked:
            return model
    letters = sum(len(SPACE + line) for line in lines)
    most = load_units(_train(lines, least + LONGEST_PIECE * letters)).get_piece_size()
    raise ConfigError(
        f"vocabulary {vocabulary}: this text supports {least} to {most} units; give run.sh one of these numbers, e.g. "
        f'--probe_args "--vocabulary {min(max(vocabulary, least), most)}", or none'
    )


def _train(lines: Sequence[str], vocabulary: int) -> bytes:
    """A model of `vocabulary` pieces, or fewer if nothing is left to merge."""
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in lines if line),
        model_writer=stream,
        model_type="bpe",
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        max_sentence_length=LONGEST_BYTES,
        bos_id=-1,
        eos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return stream.getvalue()


def load_units(model: bytes) -> sentencepiece.SentencePieceProcessor:
    """The processor of a model."""
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def units_of(processor: sentencepiece.SentencePieceProcessor, text: str) -> list[str]:
    """The units of a transcript; characters unknown to the model are kept unchanged."""
    return processor.encode(" ".join(words_of(text)), out_type=str)


def words_from(units: Sequence[str]) -> list[str]:
    """The words that units spell."""
    return "".join(units).replace(SPACE, " ").split()
