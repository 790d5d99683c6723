"""Makes the data directories train, valid and test from a corpus of vector sequences.

FILL IN: the layout of the corpus. Here it is <corpus>/<set>/<subject>/<name>.csv: first a line with the names of the
channels, then a line of numbers for each frame.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.data.corpora.preparation import add_max_bad, corpus_files, prepare_sets, stamp
from speechlvm.data.kaldi.directory import DataDirectory
from speechlvm.data.kaldi.matrices import write_vectors
from speechlvm.data.log import Log
from speechlvm.utils.text import read_lines

SETS = ("train", "valid", "test")
# FILL IN: the channels in the order of the columns: "real" ones are normalised, "binary" ones stay 0 or 1.
CHANNELS = {"x": "real", "y": "real", "z": "real"}
RATE_HZ = 60.0  # FILL IN: frames per second; None if frames have no rate


def find_sequences(corpus: Path, use: str, files: list[Path], log: Log) -> dict[str, Path]:
    """The sequences of a set: ids, made of [A-Za-z0-9_.-] and beginning with the subject's; given its files.

    FILL IN: what your corpus's folders and files are called, and which set each sequence is in. A division that others
    use is a list in conf/; one of your own is drawn with `speechlvm.data.corpora.preparation.shuffled`.
    """
    found: dict[str, Path] = {}
    if not (corpus / use).is_dir():
        log.error(f"{corpus / use}: no such directory; expected {', '.join(SETS)} in the corpus's directory")
        return found
    for path in files:
        if path == corpus / use / path.parent.name / f"{path.stem}.csv":
            found[f"{path.parent.name}-{path.stem}"] = path
        else:
            log.tolerate("files are not <set>/<subject>/<name>.csv and were left out", str(path))
    return found


def read_sequence(path: Path, log: Log) -> np.ndarray | None:
    """(T, C) float32 of a file, or None if there is something wrong with it.

    FILL IN: the format of your files. Name the file and the line of what is wrong, and go on to the next file.
    """
    lines = read_lines(path)
    if not lines or [name.strip() for name in lines[0].split(",")] != list(CHANNELS):
        log.error(f"{path}:1: expected the names of the channels, '{','.join(CHANNELS)}'")
        return None
    rows = []
    for number, line in enumerate(lines[1:], 2):
        try:
            rows.append([float(word) for word in line.split(",")])
        except ValueError:
            rows.append([])
        if len(rows[-1]) != len(CHANNELS) or not np.isfinite(rows[-1]).all():
            log.error(f"{path}:{number}: '{line}'; expected {len(CHANNELS)} numbers between commas")
            return None
    if not rows:
        log.error(f"{path}: no frames; copy it again from its source, or remove it")
        return None
    return np.array(rows, dtype=np.float32)


def make_sets(corpus: Path, files: dict[str, list[Path]], out: Path, log: Log) -> dict[str, DataDirectory]:
    """The sets, read and checked."""
    sets = {}
    for use in SETS:
        paths = find_sequences(corpus, use, files[use], log)
        feats, num_frames = write_vectors(out / "frames", use, read_all_of(paths, log))
        sets[use] = DataDirectory(
            {name: paths[name].parent.name for name in feats},
            feats=feats,
            num_frames=num_frames,
            channels=CHANNELS,
            rate_hz=RATE_HZ,
        )
    return sets


def read_all_of(paths: dict[str, Path], log: Log) -> Iterator[tuple[str, np.ndarray]]:
    """The sequences one after the other, so that no more than one is held."""
    for name, path in paths.items():
        values = read_sequence(path, log)
        if values is not None:
            yield name, values


def prepare(arguments: argparse.Namespace) -> None:
    """Makes the sets, unless that is done."""
    log = Log(arguments.max_bad)
    # all that is read, and only that: the sets are made anew when any of it changes
    files = {use: corpus_files(log, arguments.corpus / use) for use in SETS}
    inputs = {"corpus": stamp(path for paths in files.values() for path in paths), "max_bad": arguments.max_bad}

    out = arguments.out
    prepare_sets(out, inputs, SETS, lambda: make_sets(arguments.corpus, files, out, log), RATE_HZ, log)


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and prepares the corpus."""
    parser = make_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="directory of the corpus")
    parser.add_argument("--out", type=Path, required=True, help="output directory of the sets")
    add_max_bad(parser)
    prepare(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    run_main(main)
