"""The IAM On-Line Handwriting Database in small: loops and arcs for letters, real names, formats and oddities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

# Forms as the lists of the task IAM-OnDB-t1 name them; the writer of each, "" where only forms.txt tells.
FORMS = {
    "trainset": {"a01-020x": "10089", "d04-081": "10107", "f02-000": "10107", "c04-134": "", "g06-000j": "10134"},
    "testset_v": {"a02-050": "10152", "e02-025": "10153"},
    "testset_t": {"b06-004": "10160", "f04-032": "10161", "g01-039": ""},
    "testset_f": {"a01-001w": "10171", "k04-318z": "10172", "n04-376z": "10173"},
}
ABSENT = {"trainset": "h07-028a", "testset_f": "p06-658z"}  # on a list, without lines
UNLISTED = "z01-000z"
FROM_ZERO = "a01-001w"  # its lines count from 00
WITHOUT_TEXT = "f02-000"
WORDS = ("a", "move", "to", "stop", "mr", "gaitskell", "from", "naming", "any", "more", "life", "peers")


def make(root: Path, lines: int = 3, words: int = 2, tables: bool = True) -> Path:
    """The corpus at `root`, as its archives unpack, with lists in task1/ and some names in capitals.

    Args:
        root: made.
        lines: of each form.
        words: of each line, about 60 points each.
        tables: whether forms.txt is there.
    """
    for name, forms in FORMS.items():
        listed = [*forms, *filter(None, [ABSENT.get(name)])]
        # as some copies have them: blanks before names, carriage returns, a blank line at the end
        write(root / "task1" / f"{name}.txt", "".join(f" {form}\r\n" for form in listed) + "\r\n")
    writers = {form: writer for forms in FORMS.values() for form, writer in forms.items()} | {UNLISTED: "10199"}
    for number, (form, writer) in enumerate(writers.items()):
        write_form(root, form, writer, lines, words, number)
    if tables:
        rows = "".join(f"{form} {writer or '10200'}\n" for form, writer in writers.items())
        write(root / "forms.txt", f"# form writer\n{rows}")
    write(root / "writers.xml", "<Writers/>\n")
    write(root / "lineImages" / "a01" / "a01-020" / "a01-020x-01.tif", "no image")
    write(root / "lineStrokes" / "a01" / "a01-020" / "._a01-020x-01.xml", "\0 of another system")
    return root


def recipe_arguments(root: Path) -> list[str]:
    """Makes the corpus in `root`; arguments of run.sh that go through all stages in a minute."""
    training = "--limits.epochs null --limits.steps 3 --data.batch_frames 1000 --model_conf.channels 16"
    return [
        *("--iam_ondb", str(make(root)), "--nj", "2", "--sample_frames", "60", "--prefix_frames", "30"),
        *("--models", "stochastic_wavenet_c200_z200_l1_diagonal", "--train_args", training),
    ]


def write(path: Path, text: str) -> None:
    """A file in the corpus's encoding, its line ends as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("latin-1"))


def stem(form: str) -> str:
    """Name of a form's directory: without the letter at its end."""
    return form.rstrip("abcdefghijklmnopqrstuvwxyz") if form[-1].isalpha() else form


def strokes_path(root: Path, form: str, line: int) -> Path:
    """Where the strokes of a line are; the directory d04 came in capitals."""
    name, home = f"{form}-{line:02d}.xml", Path(form[:3], stem(form))
    if form.startswith("d04"):
        name, home = name.upper(), Path(str(home).upper())
    return root / "lineStrokes" / home / name


def write_form(root: Path, form: str, writer: str, lines: int, words: int, seed: int) -> None:
    """Strokes, text and, where it names a writer, the original of a form."""
    generator = np.random.default_rng(seed)
    style = generator.uniform(0.8, 1.2, 2), generator.uniform(-0.3, 0.5), generator.uniform(20, 30)
    texts = []
    for number in range(lines):
        text = " ".join(generator.choice(WORDS, words))
        texts.append(text.capitalize())
        strokes = write_line(text, style, generator)
        write(strokes_path(root, form, number + (form != FROM_ZERO)), session(strokes))
    below = "%%%%%".join(texts) if form == "c04-134" else "\r\n".join(texts)
    recognised = " ".join(texts).lower()
    if form != WITHOUT_TEXT:
        home = root / "ascii" / form[:3] / stem(form)
        write(home / f"{form}.txt", f"OCR:\r\n\r\n{recognised}\r\n\r\nCSR:\r\n\r\n{below}\r\n\r\n")
    if writer:
        general = f'<General><Form id="{form}" writerID="{writer}" saveTime="17:12"/></General>'
        name = f"strokes{form[len(stem(form)) :]}.xml"
        write(root / "original" / form[:3] / stem(form) / name, session([[(1, 2), (3, 4)]], general))


def session(strokes: list[list[tuple[int, int]]], general: str = "") -> str:
    """The XML of some strokes, 50 points a second."""
    parts = ['<?xml version="1.0" encoding="ISO-8859-1"?>', "<WhiteboardCaptureSession>", *filter(None, [general])]
    parts += ["  <WhiteboardDescription>", '    <SensorLocation corner="top_left"/>', "  </WhiteboardDescription>"]
    parts.append("  <StrokeSet>")
    time = 769.05
    for points in strokes:
        parts.append(f'    <Stroke colour="black" start_time="{time:.2f}" end_time="{time + 0.02 * len(points):.2f}">')
        for x, y in points:
            parts.append(f'      <Point x="{x}" y="{y}" time="{time:.2f}"/>')
            time += 0.02
        parts.append("    </Stroke>")
    return "\n".join([*parts, "  </StrokeSet>", "</WhiteboardCaptureSession>", ""])


def write_line(text: str, style: tuple, generator: np.random.Generator) -> list[list[tuple[int, int]]]:
    """Strokes of a line, a stroke to a word and one to each dot or bar; y downwards, as on the whiteboard."""
    (width, height), slant, speed = style
    strokes, start = [], 1000.0
    for word in text.split():
        curve, extra = [], []
        for letter in word:
            shape = np.random.default_rng(ord(letter))
            phase = 2 * np.pi * np.arange(0, 1, speed / 400)
            tall = 3.0 if letter in "fklt" else -2.0 if letter in "gpy" else 1.0
            up = 40 * tall * np.sin(phase / 2) ** 2 + 15 * np.sin((1 + shape.integers(3)) * phase)
            across = 50 * phase / (2 * np.pi) + shape.uniform(10, 25) * np.sin(phase + shape.uniform(0, 1))
            curve.append(np.stack([start + across, up], 1))
            if letter in "ijt":
                mark = np.array([[start + 5.0, 70.0], [start + 15, 72], [start + (45 if letter == "t" else 16), 71]])
                extra.append(mark)
            start += 50
        for points in [np.concatenate(curve), *extra]:
            points = points + generator.normal(0, 0.7, points.shape)
            x, up = points[:, 0] + slant * points[:, 1], points[:, 1]
            pairs = np.rint(np.stack([width * x, 2000 - height * up], 1)).astype(int)
            strokes.append([(int(x), int(y)) for x, y in pairs])
        start += 60
    return strokes
