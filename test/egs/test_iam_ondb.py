"""The recipe for handwriting: a messy copy gives the right frames and sets, damage is named by file and line."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from imitations import iam_ondb
from programs import call, load

from speechlvm.bin.dump import main as dump
from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.data.kaldi.matrices import read_vectors
from speechlvm.distributions.gaussian import Gaussian
from speechlvm.experiment.config import load_config
from speechlvm.reporting.pictures import new_figure
from speechlvm.reporting.tables import load_tables

RECIPE = Path(__file__).resolve().parents[2] / "egs/iam_ondb"
SETS = ("train", "valid", "test")
LINE = "lineStrokes/a01/a01-020/a01-020x-02.xml"

prepare, draw = load(RECIPE / "local/prepare.py"), load(RECIPE / "local/draw.py")


@pytest.fixture
def corpus(tmp_path):
    return iam_ondb.make(tmp_path / "IAM on-line", words=1)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data"


def run(corpus, out, *words):
    return call(prepare.main, "--corpus", corpus, "--out", out, *words)


def sets_of(out):
    return {name: load_data_dir(out / name) for name in SETS}


def frames_of(out):
    """Frames of each line of all sets."""
    return {
        utterance.rpartition("_")[2]: read_vectors(place)
        for data in sets_of(out).values()
        for utterance, place in data.feats.items()
    }


def lines_of(*lists, count=3):
    """Names of the lines of some lists, as the imitation makes them."""
    forms = [form for name in lists for form in iam_ondb.FORMS[name]]
    first = {form: int(form != iam_ondb.FROM_ZERO) for form in forms}
    return {f"{form}-{number + first[form]:02d}" for form in forms for number in range(count)}


def names(data):
    return {utterance.rpartition("_")[2] for utterance in data.utt2spk}


def test_the_sets_are_gravess(corpus, out):
    done = run(corpus, out)
    assert done.returncode == 0, done.stderr
    data = sets_of(out)
    assert names(data["test"]) == lines_of("testset_v")  # the smaller of the two validation sets
    assert names(data["train"]) | names(data["valid"]) == lines_of("trainset", "testset_f", "testset_t")
    assert not set(data["train"].utt2spk.values()) & set(data["valid"].utt2spk.values())
    assert 0 < len(data["valid"].utt2spk) <= 6
    for part in data.values():
        assert part.channels == {"pen": "binary", "dx": "real", "dy": "real"} and part.rate_hz is None


def test_frames_are_offsets_with_the_lift_at_a_strokes_last_point(corpus, out):
    run(corpus, out)
    everything = frames_of(out)
    assert len(everything) == 39
    for name, frames in everything.items():
        root = ElementTree.parse(iam_ondb.strokes_path(corpus, name[:-3], int(name[-2:]))).getroot()
        points = [
            (int(point == stroke[-1]), int(point.get("x")), int(point.get("y")))
            for stroke in root.find("StrokeSet")
            for point in stroke
        ]
        expected = [(b[0], b[1] - a[1], b[2] - a[2]) for a, b in zip(points, points[1:], strict=False)]
        np.testing.assert_array_equal(frames, np.array(expected, np.float32))


def test_writers_and_texts(corpus, out):
    done = run(corpus, out)
    data = sets_of(out)
    speakers = {u.rpartition("_")[2]: s for part in data.values() for u, s in part.utt2spk.items()}
    assert speakers["a01-020x-01"] == "w10089" and speakers["c04-134-03"] == "w10200"
    assert speakers["d04-081-01"] == speakers["f02-000-02"] == "w10107"
    texts = {u.rpartition("_")[2]: t for part in data.values() for u, t in part.text.items()}
    assert texts.keys() == speakers.keys() - {f"f02-000-0{n}" for n in (1, 2, 3)}
    assert all(re.fullmatch("[A-Z][a-z]*", text) for text in texts.values())
    for warning in (
        "forms are in no list, and their lines were left out: z01-000z",
        "forms of the 6 in trainset.txt have no lines in this copy: h07-028a",
        "forms of the 4 in testset_f.txt have no lines in this copy: p06-658z",
        "forms have no file in ascii/: f02-000",
    ):
        assert f"warning: {warning}\n" in done.stderr
    assert done.stderr.count("warning") == 4


def test_writers_without_their_table(tmp_path, out):
    corpus = iam_ondb.make(tmp_path / "corpus", words=1, tables=False)
    done = run(corpus, out)
    speakers = {u.rpartition("_")[2]: s for part in sets_of(out).values() for u, s in part.utt2spk.items()}
    assert speakers["a01-020x-01"] == "w10089" and speakers["c04-134-03"] == "c04-134"
    assert "2 forms have no writer in forms.txt or original/; each is one speaker: c04-134, g01-039" in done.stderr
    path = "original/e02/e02-025/strokes.xml"
    edit(corpus, "<General>", "<General", path)
    done = run(corpus, out)
    assert done.returncode == 1 and f"error: {corpus / path}:3: not well-formed XML" in done.stderr


def test_the_tasks_own_sets(corpus, out):
    assert run(corpus, out, "--division", "t1").returncode == 0
    expected = {"train": "trainset", "valid": "testset_v", "test": "testset_f"}
    data = sets_of(out)
    assert {name: names(data[name]) for name in SETS} == {name: lines_of(part) for name, part in expected.items()}


def test_graves_tests_on_the_shorter_list_whichever_it_is(corpus, out):
    lists = [corpus / "task1" / f"testset_{letter}.txt" for letter in "vt"]
    contents = [path.read_bytes() for path in lists]
    for path, content in zip(lists, reversed(contents), strict=True):
        path.write_bytes(content)
    run(corpus, out)
    assert names(sets_of(out)["test"]) == lines_of("testset_v")


def edit(corpus, old, new, path=LINE):
    text = (corpus / path).read_text(encoding="latin-1")
    assert old in text
    (corpus / path).write_text(text.replace(old, new, 1), encoding="latin-1")


def test_far_offsets_are_kept_and_told_or_clipped(corpus, out):
    first = re.search(r'<Point x="\d+"', (corpus / LINE).read_text()).group()
    edit(corpus, first, '<Point x="-4000"')
    done = run(corpus, out)
    assert "lines have offsets beyond 500 units, as of lost points (--clip bounds them): a01-020x-02" in done.stderr
    assert frames_of(out)["a01-020x-02"][0, 1] > 4500
    assert run(corpus, out, "--clip", "20").returncode == 0
    assert max(np.abs(frames).max() for frames in frames_of(out).values()) == 20


def test_the_change_to_published_densities(corpus, out):
    """The same density of the same offsets, normalised as the published code does and as ours."""
    done = run(corpus, out)
    printed = float(re.search(r"add (\S+) nats per frame to ours", done.stdout).group(1))
    train = load_data_dir(out / "train")
    offsets = torch.from_numpy(np.concatenate([read_vectors(x) for x in train.feats.values()])[:, 1:].astype(float))
    ours = (offsets - offsets.mean(0)) / offsets.std(0, correction=0)
    # both channels' sums over the number of frames, as the published code has it
    mean = offsets.sum() / len(offsets)
    published = (offsets - mean) / (offsets.square().sum() / len(offsets) - mean.square()).sqrt()
    density, weights = Gaussian(2, 0.0), torch.ones(len(offsets))
    ours, published = (density.log_prob(density.initial_bias(x, weights), x).mean() for x in (ours, published))
    assert (published - ours).item() == pytest.approx(printed, abs=1e-4)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
EXTERNAL = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
SESSION = "<WhiteboardCaptureSession>"
ONE = f"{SESSION}\n<StrokeSet><Stroke>{{}}</Stroke></StrokeSet>\n</WhiteboardCaptureSession>"


def line(text):
    return lambda corpus: (corpus / LINE).write_text(text)


DAMAGE = {
    ":2: declares a document type": lambda c: edit(c, SESSION, f"{BOMB}\n{SESSION}"),
    ":2: declares a document": lambda c: edit(c, SESSION, f"{EXTERNAL}{SESSION}"),
    ":1: not well-formed XML (no element found)": line(""),
    ":2: not well-formed XML (mismatched tag)": line(ONE.replace("</Stroke>", "")),
    "not well-formed XML": lambda c: (c / LINE).write_bytes((c / LINE).read_bytes()[:700]),
    ":2: a stroke without points": line(ONE.format("")),
    "a stroke without points": lambda c: edit(c, "    </Stroke>", '</Stroke>\n<Stroke colour="black"/>'),
    ":3: 0 points in all": line(re.sub(r"<Stroke>.*</Stroke>", "", ONE)),
    ":3: 1 points in all; expected two": line(ONE.format('<Point x="1" y="2"/>')),
    ":2: a point with 'NaN' for x": line(ONE.format('<Point x="NaN" y="2"/>')),
    ":3: a point with '1e400' for y": line(ONE.format('\n<Point x="1" y="1e400"/>')),
    ":2: a point with '' for y": line(ONE.format('<Point x="1"/>')),
    ":1: <html>; expected <WhiteboardCaptureSession>": line("<html>\n</html>"),
    ":2: a <Point> outside": line(ONE.replace("Stroke>", "Curve>").format('<Point x="1" y="2"/>')),
}


@pytest.mark.parametrize(("message", "change"), DAMAGE.items(), ids=DAMAGE)
def test_a_damaged_line_is_named_by_file_and_line(corpus, out, change, message):
    change(corpus)
    done = run(corpus, out)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {corpus / LINE}:") and message in last
    assert last.endswith("; get an intact copy, or --leave_out a01-020x-02")
    assert not (out / "train").exists() and not list(out.rglob("*.ark"))
    # and can be left out by name
    done = run(corpus, out, "--leave_out", "A01-020x-02")
    assert done.returncode == 0 and "left out (--leave_out): a01-020x-02\n" in done.stdout
    assert sum(len(data.utt2spk) for data in sets_of(out).values()) == 38


def copy(corpus, name):
    (corpus / "copy").mkdir()
    (corpus / "copy" / name).write_bytes((corpus / LINE).read_bytes())


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (lambda c: (c / "task1/testset_t.txt").unlink(), [], "no testset_t.txt below it; get the lists"),
        (lambda c: edit(c, "k04-318z", "k04_318z", "task1/testset_f.txt"), [], "testset_f.txt:2: 'k04_318z'; expected"),
        (lambda c: edit(c, "k04-318z", "b06-004", "task1/testset_f.txt"), [], "testset_f.txt:2: form b06-004 is also"),
        (lambda c: copy(c, "a01-020x-02.XML"), [], f"{LINE}: the same file as"),
        (lambda c: None, ["--leave_out", "a01-020x-09"], "--leave_out a01-020x-09: no such line in the sets"),
        (lambda c: None, ["--clip", "nan"], "--clip: 'nan': expected a number above 0"),
    ],
)
def test_what_is_wrong_with_a_copy_is_named(corpus, out, change, words, message):
    change(corpus)
    done = run(corpus, out, *words)
    assert done.returncode == 1 + ("--clip" in words)
    assert message in done.stderr.splitlines()[-1]
    assert not (out / "train").exists()


def test_missing_lines_are_named(corpus, out):
    (corpus / LINE).unlink()
    done = run(corpus, out)
    assert done.returncode == 0
    assert "forms have gaps between their lines: a01-020x" in done.stderr and "(no text): a01-020x" in done.stderr
    assert not any("a01-020x" in utterance for data in sets_of(out).values() for utterance in data.text)


# --- Pages ------------------------------------------------------------------------------------------------------------


def test_strokes_of_frames():
    frames = np.array([[0, 1, 0], [1, 1, 1], [1, 5, 0], [0, 2, 2], [0, 0, 1]], np.float32)
    strokes = [stroke.tolist() for stroke in draw.strokes_of(frames)]
    assert strokes == [[[0, 0], [1, 0], [2, 1]], [[7, 1]], [[9, 3], [9, 4]]]
    frames[-1, 0] = 1
    assert len(draw.strokes_of(frames)) == 3


def test_a_page_for_each_model_and_one_for_all(corpus, out, tmp_path):
    run(corpus, out)
    dump(["--data", str(out / "test"), "--out", str(tmp_path / "dump"), "--kind", "vectors"])
    data = [read_vectors(x) for x in load_data_dir(out / "test").feats.values()]
    for model in ("one", "two"):
        samples = tmp_path / "exp" / model / "seed1/samples"
        samples.mkdir(parents=True)
        index = []
        for row, kind in enumerate(("prior", "prior", "continuation")):
            np.save(samples / f"{kind}_{row}.npy", data[row])
            index.append({"name": f"{kind}_{row}", "kind": kind, "marks": [9] if kind == "continuation" else []})
        (samples / "samples.json").write_text(json.dumps(index))
        (samples / "done.json").write_text(json.dumps({"model": model}))

    def drawn(models):
        words = ["--exp", tmp_path / "exp", "--dump", tmp_path / "dump", "--models", models, "--seeds", "1"]
        return call(draw.main, *words)

    done = drawn("one two")
    assert done.returncode == 0, done.stderr
    pages = tmp_path / "exp/handwriting"
    for stem in ("one_seed1", "two_seed1", "figure3"):
        assert (pages / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
        assert (pages / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    assert drawn("one two").stdout == f"{pages}: complete\n"
    (tmp_path / "exp/one/seed1/samples/done.json").write_text("{}")
    assert drawn("one").stdout == f"{pages}: 2 pages\n"
    missing = drawn("three")
    assert missing.returncode == 1 and "three/seed1/samples/done.json: missing; run the stage" in missing.stderr


def test_strokes_are_drawn_apart_at_one_scale_with_the_real_beginning_in_grey():
    axis = new_figure().subplots()
    frames = np.array([[0, 10, 0], [1, 10, 10], [0, 10, 0], [1, 0, 4], [1, 30, 0]], np.float32)
    draw.draw_lines(axis, [("a", frames, 0), ("b", frames, 3)])
    drawn = [(line.get_xydata(), line.get_color()) for line in axis.lines if len(line.get_xydata())]
    first, second = drawn[:3], drawn[3:]
    assert [(len(points), colour) for points, colour in first] == [(3, "black"), (2, "black"), (1, "black")]
    assert first[0][0].tolist() == [[0, 0], [10, 0], [20, 10]]
    below = second[0][0][0, 1]
    assert below > 14  # the second line starts below the first one's end
    np.testing.assert_allclose(second[0][0], first[0][0] + [0, below])
    assert [(len(points), colour) for points, colour in second] == [(3, "0.6"), (1, "0.6"), (2, "black"), (1, "black")]
    assert axis.get_aspect() == 1 and axis.yaxis_inverted()


# --- Configurations ---------------------------------------------------------------------------------------------------

CONFIGS = sorted((RECIPE / "conf").glob("*.yaml"))
TABLES = {table.table: table for table in load_tables(RECIPE / "conf/tables")}
OUTPUTS = {"diagonal": (1, False), "bivariate": (1, True), "mixture of 20 bivariate": (20, True)}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_is_what_its_rows_say(path):
    config = load_config(path)
    rows = [(name, row) for name, table in TABLES.items() for row in table.rows if row.experiment == path.stem]
    conf, found = config.model_conf, config.distribution_conf
    for name, row in rows:
        output, _, sizes = row.configuration.partition("; ")
        assert (found["components"], found["correlated"]) == OUTPUTS[output] and row.s == 1
        assert {"B2": "Table 2", "B4c": "4c", "B5c": "5c"}[name] in path.read_text().splitlines()[0]
        if match := re.search(r"(\d+) latents( in all)?$", sizes):
            assert conf["latent_total"] == int(match.group(1))
        if match := re.search(r"(\d+) latents each", sizes):
            assert conf["latent_total"] // conf["stochastic_layers"] == int(match.group(1))


def test_the_tables_are_source_bs():
    published = [row.published.get("test") for row in TABLES["B2"].rows]
    assert published == [1016, 1334, 1021, 1301] * 2 + [None] * 4
    assert [row.mark for row in TABLES["B2"].rows] == ["", ">=", "", ">="] * 2 + [""] * 4
    axes = {
        "B4c": ("stochastic_layers", [1, 2, 3, 4, 5, 6]),
        "B5c": ("latent_total", [20, 60, 100, 200, 300, 400, 500]),
    }
    for name, (setting, grid) in axes.items():
        rows = TABLES[name].rows
        confs = [load_config(RECIPE / f"conf/{row.experiment}.yaml").model_conf for row in rows]
        assert [row.at for row in rows] == [conf[setting] for conf in confs] == grid


@pytest.mark.recipe
def test_the_recipe_runs(run_recipe):
    run_recipe("iam_ondb")  # transcripts of strokes
