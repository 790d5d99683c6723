"""Makes the data directories train, valid and test from the IAM On-Line Handwriting Database.

A line of handwriting, ``lineStrokes/a01/a01-000/a01-000u-01.xml``, becomes a sequence of pen points (pen, dx, dy) as in
Graves (2013): each point's offset from the one before in units of the whiteboard, y downwards, and pen = 1 at the last
point of a stroke. The first point has no offset and is no frame. The lists of the task IAM-OnDB-t1 (trainset.txt,
testset_v.txt, testset_t.txt, testset_f.txt), which name forms, divide the corpus:

    graves  train: training set, final test set and the larger validation set, less the speakers of valid;
            valid: whole speakers with 5 % of these lines; test: the smaller validation set, which the published
            figures are of
    t1      train, valid, test: training set, first validation set, final test set; the second validation set is unused

Files are found by name, at any depth and in any case. Speakers are writers if forms.txt or the original forms name
them, else forms. Errors in lines stop the preparation after all have been read, and nothing is written; missing files
are warnings. XML with a document type is refused: entities, which can name other files or grow without bound, can only
be declared there.
"""

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import numpy as np

from speechlvm.bin.cli import make_parser, positive, run_main
from speechlvm.data.corpora.preparation import corpus_files, prepare_sets, shuffled, stamp
from speechlvm.data.kaldi.directory import DataDirectory
from speechlvm.data.kaldi.matrices import write_vectors
from speechlvm.data.log import Log
from speechlvm.utils.errors import UserError
from speechlvm.utils.text import read_lines, read_text

CHANNELS = {"pen": "binary", "dx": "real", "dy": "real"}
LISTS = ("trainset", "testset_v", "testset_t", "testset_f")
VALID_SHARE = 0.05
LONG_UNITS = 500  # where others clip
NUMBER = re.compile(r"-?[0-9]{1,6}(\.[0-9]+)?")
FORM = re.compile(r"[a-z][0-9]{2}-[0-9]{3}[a-z]?")
LINE = re.compile(rf"({FORM.pattern})-([0-9]{{2}})\.xml")
WRITER = re.compile(r"[0-9a-z]+")
ORIGINAL = re.compile(r"strokes[a-z]?\.xml")


class Found(Exception):
    """Stops parsing a file once enough has been read."""


@dataclass
class Corpus:
    """The corpus's files by content.

    Attributes:
        lines: form -> name of a line -> its strokes.
        texts: form -> its file in ascii/.
        originals: forms as they were recorded.
        lists: by name.
        writers: forms.txt, if it is there.
    """

    lines: dict[str, dict[str, Path]] = field(default_factory=dict)
    texts: dict[str, Path] = field(default_factory=dict)
    originals: list[Path] = field(default_factory=list)
    lists: dict[str, Path] = field(default_factory=dict)
    writers: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All that the sets are made of."""
        lines = [path for of_form in self.lines.values() for path in of_form.values()]
        return [*lines, *self.texts.values(), *self.originals, *self.lists.values(), *filter(None, [self.writers])]


def find_files(root: Path, log: Log) -> Corpus:
    """The corpus's files, found by name; others (images, archives) are skipped.

    Raises:
        UserError: no such directory, one that cannot be read, no lines, or no list, saying what was looked for.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such directory; give the directory of the corpus, which holds lineStrokes")
    corpus = Corpus()

    def only(column: dict[str, Path], name: str, path: Path) -> None:
        if name in column:
            log.error(f"{path}: the same file as {column[name]}; remove one of the two")
        column.setdefault(name, path)

    for path in sorted(path for path in corpus_files(log, root) if path.suffix.lower() in (".xml", ".txt")):
        name = path.name.lower()
        if match := LINE.fullmatch(name):
            only(corpus.lines.setdefault(match.group(1), {}), name.removesuffix(".xml"), path)
        elif ORIGINAL.fullmatch(name):
            corpus.originals.append(path)
        elif path.suffix.lower() == ".txt":
            stem = name.removesuffix(".txt")
            if stem in LISTS:
                only(corpus.lists, stem, path)
            elif stem == "forms":
                corpus.writers = path
            elif FORM.fullmatch(stem):
                only(corpus.texts, stem, path)
    if not corpus.lines:
        raise UserError(
            f"{root}: no lines of handwriting; looked for files like lineStrokes/a01/a01-000/a01-000u-01.xml (in any "
            "case) below it; give the directory into which lineStrokes-all.tar.gz was unpacked"
        )
    if missing := [f"{name}.txt" for name in LISTS if name not in corpus.lists]:
        raise UserError(
            f"{root}: no {', '.join(missing)} below it; get the lists of the task IAM-OnDB-t1 from the page of the "
            "database and put them there"
        )
    return corpus


def read_lists(corpus: Corpus, log: Log) -> dict[str, list[str]]:
    """The forms of each list, checked; those without lines are counted and named."""
    lists: dict[str, list[str]] = {name: [] for name in LISTS}
    seen: dict[str, str] = {}
    for name, forms in lists.items():
        path = corpus.lists[name]
        for number, line in enumerate(read_lines(path), 1):
            form, place = line.strip().lower(), f"{path}:{number}"
            if not form:
                continue
            if not FORM.fullmatch(form):
                log.error(f"{place}: '{line.strip()}'; expected the name of a form, e.g. a01-000u")
            elif form in forms:
                log.tolerate("forms are in a list twice", f"{place} {form}")
            elif form in seen:
                log.error(f"{place}: form {form} is also in {seen[form]}; a form belongs to one set")
            else:
                forms.append(form)
            seen.setdefault(form, place)
        for form in forms:
            if form not in corpus.lines:
                log.tolerate(f"forms of the {len(forms)} in {path.name} have no lines in this copy", form)
    for form in sorted(corpus.lines.keys() - seen.keys()):
        log.tolerate("forms are in no list, and their lines were left out", form)
    return lists


Start = Callable[[str, dict[str, str], int], None]


def parse(path: Path, start: Start, end: Callable[[str, int], None], remedy: str) -> None:
    """Calls `start` (tag, attributes, line number) and `end` (tag, line number) for the elements of an XML file.

    Raises:
        UserError: not well-formed, or with a document type.
    """
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise UserError(
            f"{path}:{parser.CurrentLineNumber}: declares a document type, which no file of the corpus does; entities "
            f"are not read; {remedy}"
        )

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda tag, attributes: start(tag, attributes, parser.CurrentLineNumber)
    parser.EndElementHandler = lambda tag: end(tag, parser.CurrentLineNumber)
    try:
        with open(path, "rb") as stream:
            parser.ParseFile(stream)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise UserError(f"{path}:{error.lineno}: not well-formed XML ({reason}); {remedy}") from None


def read_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points of a line.

    Returns:
        Places (N, 2) in units of the whiteboard, and (N,) whether each is the last point of its stroke.

    Raises:
        UserError: saying in which line of the file something is wrong.
    """
    places: list[tuple[float, float]] = []
    last: list[bool] = []
    inside: list[str] = []
    remedy = f"get an intact copy, or --leave_out {path.stem.lower()}"

    def fail(number: int, message: str) -> None:
        raise UserError(f"{path}:{number}: {message}; {remedy}")

    def start(tag: str, attributes: dict[str, str], number: int) -> None:
        if not inside and tag != "WhiteboardCaptureSession":
            fail(number, f"<{tag}>; expected <WhiteboardCaptureSession>, as of a line's strokes")
        inside.append(tag)
        if tag == "Point":
            if inside[-3:-1] != ["StrokeSet", "Stroke"]:
                fail(number, "a <Point> outside <StrokeSet>, <Stroke>")
            places.append(tuple(coordinate(attributes, name, number) for name in "xy"))
            last.append(False)

    def coordinate(attributes: dict[str, str], name: str, number: int) -> float:
        text = attributes.get(name, "")
        if not NUMBER.fullmatch(text):
            fail(number, f"a point with '{text}' for {name}; expected a number of up to six digits")
        return float(text)

    def end(tag: str, number: int) -> None:
        inside.pop()
        if tag == "Stroke":
            if not places or last[-1]:
                fail(number, "a stroke without points")
            last[-1] = True
        elif not inside and len(places) < 2:
            fail(number, f"{len(places)} points in all; expected two or more, as frames are offsets between them")

    parse(path, start, end, remedy)
    return np.array(places), np.array(last)


def read_frames(name: str, path: Path, clip: float | None, log: Log) -> np.ndarray:
    """(T, 3) frames (pen, dx, dy) of a line of T + 1 points."""
    places, last = read_points(path)
    offsets = np.diff(places, axis=0)
    if last[0]:
        log.tolerate("lines begin with a stroke of one point, whose pen lift is lost", name)
    if np.abs(offsets).max() > LONG_UNITS:
        log.tolerate(f"lines have offsets beyond {LONG_UNITS} units, as of lost points (--clip bounds them)", name)
    if clip is not None:
        offsets = offsets.clip(-clip, clip)
    return np.column_stack([last[1:], offsets]).astype(np.float32)


def read_writers(corpus: Corpus, forms: list[str], log: Log) -> dict[str, str]:
    """Writers of forms, from forms.txt or, if that lacks any of them, from the original forms too."""
    writers: dict[str, str] = {}
    for line in read_lines(corpus.writers) if corpus.writers else []:
        form, writer, *_ = [*line.lower().split(), "", ""]
        if FORM.fullmatch(form) and WRITER.fullmatch(writer):
            writers[form] = writer

    def start(tag: str, attributes: dict[str, str], _: int) -> None:
        form, writer = attributes.get("id", "").lower(), attributes.get("writerID", "").lower()
        if tag == "Form" and FORM.fullmatch(form) and WRITER.fullmatch(writer):
            writers.setdefault(form, writer)
        if tag in ("Form", "StrokeSet"):
            raise Found

    for path in corpus.originals if not writers.keys() >= set(forms) else []:
        try:
            parse(path, start, lambda *_: None, "get an intact copy, or remove it")
        except Found:
            pass
        except UserError as error:
            log.error(str(error))
    return writers


def read_texts(corpus: Corpus, form: str, names: list[str], log: Log) -> dict[str, str]:
    """Text of each line of a form: what follows CSR: in ascii/, if it has as many lines as the form."""
    if form not in corpus.texts:
        log.tolerate("forms have no file in ascii/", form)
        return {}
    _, marker, below = read_text(corpus.texts[form]).partition("CSR:")
    lines = [" ".join(line.split()) for line in re.split(r"[\r\n]+|%%+", below)]
    lines = [line for line in lines if line]
    if not marker or len(lines) != len(names):
        log.tolerate("forms have other numbers of lines in ascii/ (below CSR:) and lineStrokes/ (no text)", form)
        return {}
    return dict(zip(names, lines, strict=True))


def divide(lists: dict[str, list[str]], speakers: dict[str, dict[str, str]], division: str, seed: int) -> dict:
    """Names of the lines of each set.

    Args:
        lists: forms of each list.
        speakers: form -> line -> speaker, of the lines that there are.
        division: graves or t1.
        seed: of the draw of the validation set (graves).
    """
    lines = {name: [line for form in forms for line in speakers.get(form, ())] for name, forms in lists.items()}
    if division == "t1":
        return {"train": lines["trainset"], "valid": lines["testset_v"], "test": lines["testset_f"]}
    # by the lists, not by the files: a copy may be partial
    smaller, larger = sorted(("testset_v", "testset_t"), key=lambda name: len(lists[name]))
    pool = lines["trainset"] + lines["testset_f"] + lines[larger]
    of_speaker: dict[str, list[str]] = {}
    for line in pool:
        of_speaker.setdefault(speakers[line[:-3]][line], []).append(line)
    held: list[str] = []
    for speaker in shuffled(of_speaker, seed):
        if len(held) < VALID_SHARE * len(pool):
            held += of_speaker[speaker]
    return {"train": sorted(set(pool) - set(held)), "valid": sorted(held), "test": lines[smaller]}


@dataclass
class Moments:
    """Sums over the frames of the training set."""

    frames: int = 0
    total: np.ndarray = field(default_factory=lambda: np.zeros(2))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(2))

    def add(self, frames: np.ndarray) -> None:
        """Counts a line."""
        offsets = frames[:, 1:].astype(np.float64)
        self.frames += len(offsets)
        self.total += offsets.sum(0)
        self.squares += (offsets**2).sum(0)

    def describe(self) -> str:
        """What compares our densities, of offsets normalised one by one, with the published ones.

        The published code divides both by one number S, whose square is E dx^2 + E dy^2 - (E dx + E dy)^2, so that its
        densities are S^2 / (deviation of dx x deviation of dy) times ours, about twice.
        """
        mean, square = self.total / self.frames, self.squares / self.frames
        std = np.sqrt(square - mean**2)
        nats = np.log(square.sum() - mean.sum() ** 2) - np.log(std).sum()
        return (
            f"offsets of train: means {mean[0]:.3f} {mean[1]:.3f}, deviations {std[0]:.3f} {std[1]:.3f}; published "
            f"figures are of offsets divided by one number: add {nats:.4f} nats per frame to ours before comparing"
        )


def make_sets(corpus: Corpus, arguments: argparse.Namespace, log: Log) -> dict[str, DataDirectory]:
    """The sets, read and checked, their frames written below `out`.

    Raises:
        UserError: there are errors.
    """
    lists = read_lists(corpus, log)
    forms = [form for forms in lists.values() for form in forms if form in corpus.lines]
    writers = read_writers(corpus, forms, log)
    absent = set(arguments.leave_out)
    speakers: dict[str, dict[str, str]] = {}
    texts: dict[str, str] = {}
    for form in forms:
        names = sorted(corpus.lines[form])
        if [int(name[-2:]) for name in names] != list(range(int(names[0][-2:]), int(names[-1][-2:]) + 1)):
            log.tolerate("forms have gaps between their lines", form)
        if form not in writers:
            log.tolerate("forms have no writer in forms.txt or original/; each is one speaker", form)
        texts |= read_texts(corpus, form, names, log)
        speaker = f"w{writers[form]}" if form in writers else form
        speakers[form] = {name: speaker for name in names if name not in arguments.leave_out}
        absent -= set(names)
    for name in sorted(absent):
        log.error(f"--leave_out {name}: no such line in the sets; expected names such as a01-000u-01")
    sets = divide(lists, speakers, arguments.division, arguments.seed)
    paths = {name: path for form in forms for name, path in corpus.lines[form].items()}
    speaker_of = {name: speaker for of_form in speakers.values() for name, speaker in of_form.items()}
    utterance = {name: f"{speaker}_{name}" if speaker[0] == "w" else name for name, speaker in speaker_of.items()}
    moments, train = Moments(), set(sets["train"])

    def sequences() -> Iterator[tuple[str, np.ndarray]]:
        for name in (name for names in sets.values() for name in names):
            try:
                frames = read_frames(name, paths[name], arguments.clip, log)
            except UserError as error:
                log.error(str(error))
                continue
            if name in train:
                moments.add(frames)
            yield utterance[name], frames
        log.report()  # while the archive is not complete yet

    feats, num_frames = write_vectors(arguments.out / "archives", "lines", sequences())
    if arguments.leave_out:
        print(f"left out (--leave_out): {' '.join(arguments.leave_out)}")
    if train:
        print(moments.describe())
    return {
        set_name: DataDirectory(
            {utterance[name]: speaker_of[name] for name in names},
            feats={utterance[name]: feats[utterance[name]] for name in names},
            num_frames={utterance[name]: num_frames[utterance[name]] for name in names},
            text={utterance[name]: texts[name] for name in names if name in texts},
            channels=CHANNELS,
        )
        for set_name, names in sets.items()
    }


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and prepares the corpus."""
    parser = make_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="directory with lineStrokes and the lists below it")
    parser.add_argument("--out", type=Path, required=True, help="output directory of train/, valid/ and test/")
    parser.add_argument("--division", choices=("graves", "t1"), default="graves")
    parser.add_argument(
        "--clip", type=positive(float), metavar="UNITS", help="clip dx and dy to this range; default: no clipping"
    )
    parser.add_argument("--leave_out", default="", metavar="LINES", help="lines to leave out, as 'a01-000u-01 ...'")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the validation split (graves)")
    arguments = parser.parse_args(argv)
    arguments.leave_out = sorted(arguments.leave_out.lower().split())
    log = Log()
    corpus = find_files(arguments.corpus, log)
    options = {name: getattr(arguments, name) for name in ("division", "clip", "seed", "leave_out")}
    inputs = {"options": options, "corpus": stamp(corpus.files)}

    def make() -> dict[str, DataDirectory]:
        log.report()
        return make_sets(corpus, arguments, log)

    prepare_sets(arguments.out, inputs, ("train", "valid", "test"), make, None, log)
    return 0


if __name__ == "__main__":
    run_main(main)
