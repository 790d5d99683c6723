"""The recipe for handwriting: a messy copy gives the right frames and sets, damage is named by file and line."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from imitations import iam_ondb
from programs import call, load

from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.data.kaldi.matrices import read_vectors
from speechlvm.data.kaldi.validate import validate
from speechlvm.distributions.gaussian import Gaussian
from speechlvm.experiment.config import load_config
from speechlvm.experiment.load import build
from speechlvm.observation import VectorObservation
from speechlvm.reporting.tables import load_tables

RECIPE = Path(__file__).resolve().parents[2] / "egs/iam_ondb"
SETS = ("train", "valid", "test")
CHANNELS = {"pen": "binary", "dx": "real", "dy": "real"}
LINE = "lineStrokes/a01/a01-020/a01-020x-02.xml"


@pytest.fixture(scope="module")
def prepare():
    return load(RECIPE / "local/prepare.py")


@pytest.fixture(scope="module")
def draw():
    return load(RECIPE / "local/draw.py")


def run(main, *words):
    """Exit status, standard output and standard error of a program."""
    done = call(main, *words)
    return SimpleNamespace(status=done.returncode, output=done.stdout, errors=done.stderr)


@pytest.fixture
def corpus(tmp_path):
    return iam_ondb.make(tmp_path / "IAM on-line", words=1)


def sets_of(out):
    return {name: load_data_dir(out / name) for name in SETS}


def lines_of(*lists, count=3):
    """Names of the lines of some lists, as the imitation makes them."""
    forms = [form for name in lists for form in iam_ondb.FORMS[name]]
    first = {form: int(form != iam_ondb.FROM_ZERO) for form in forms}
    return {f"{form}-{number + first[form]:02d}" for form in forms for number in range(count)}


def names(data):
    return {utterance.rpartition("_")[2] for utterance in data.utt2spk}


def test_the_sets_are_gravess(prepare, corpus, tmp_path):
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    assert done.status == 0, done.errors
    data = sets_of(tmp_path / "data")
    assert names(data["test"]) == lines_of("testset_v")  # the smaller of the two validation sets
    assert names(data["train"]) | names(data["valid"]) == lines_of("trainset", "testset_f", "testset_t")
    assert not set(data["train"].utt2spk.values()) & set(data["valid"].utt2spk.values())
    assert 0 < len(data["valid"].utt2spk) <= 6
    for name in SETS:
        assert validate(tmp_path / "data" / name) == []
        assert data[name].channels == CHANNELS
        assert data[name].rate_hz is None


def test_frames_are_offsets_with_the_lift_at_a_strokes_last_point(prepare, corpus, tmp_path):
    run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    everything = [item for data in sets_of(tmp_path / "data").values() for item in data.feats.items()]
    assert len(everything) == 39
    for utterance, location in everything:
        name = utterance.rpartition("_")[2]
        root = ElementTree.parse(iam_ondb.strokes_path(corpus, name[:-3], int(name[-2:]))).getroot()
        points = [
            (int(point == stroke[-1]), int(point.get("x")), int(point.get("y")))
            for stroke in root.find("StrokeSet")
            for point in stroke
        ]
        expected = [(b[0], b[1] - a[1], b[2] - a[2]) for a, b in zip(points, points[1:], strict=False)]
        np.testing.assert_array_equal(read_vectors(location), np.array(expected, np.float32))


def test_writers_and_texts(prepare, corpus, tmp_path):
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    data = sets_of(tmp_path / "data")
    speakers = {u.rpartition("_")[2]: s for part in data.values() for u, s in part.utt2spk.items()}
    assert speakers["a01-020x-01"] == "w10089" and speakers["c04-134-03"] == "w10200"
    assert speakers["d04-081-01"] == speakers["f02-000-02"] == "w10107"
    texts = {u.rpartition("_")[2]: t for part in data.values() for u, t in part.text.items()}
    assert texts.keys() == speakers.keys() - {f"f02-000-0{n}" for n in (1, 2, 3)}
    assert all(re.fullmatch("[A-Z][a-z]*", text) for text in texts.values())
    for warning in (
        "1 forms are in no list, and their lines were left out: z01-000z",
        "1 of the 6 forms in trainset.txt have no lines in this copy: h07-028a",
        "1 of the 4 forms in testset_f.txt have no lines in this copy: p06-658z",
        "1 forms have no file in ascii/: f02-000",
    ):
        assert f"warning: {warning}\n" in done.errors
    assert done.errors.count("warning") == 4


def test_writers_without_their_table(prepare, tmp_path):
    corpus = iam_ondb.make(tmp_path / "corpus", words=1, tables=False)
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    data = sets_of(tmp_path / "data")
    speakers = {u.rpartition("_")[2]: s for part in data.values() for u, s in part.utt2spk.items()}
    assert speakers["a01-020x-01"] == "w10089" and speakers["c04-134-03"] == "c04-134"
    assert "2 forms have no writer in forms.txt or original/; each is one speaker: c04-134, g01-039" in done.errors


def test_the_tasks_own_sets(prepare, corpus, tmp_path):
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data", "--division", "t1")
    assert done.status == 0, done.errors
    data = sets_of(tmp_path / "data")
    expected = {"train": "trainset", "valid": "testset_v", "test": "testset_f"}
    assert {name: names(data[name]) for name in SETS} == {name: lines_of(part) for name, part in expected.items()}


def test_graves_tests_on_the_shorter_list_whichever_it_is(prepare, corpus, tmp_path):
    lists = [corpus / "task1" / f"testset_{letter}.txt" for letter in "vt"]
    contents = [path.read_bytes() for path in lists]
    for path, content in zip(lists, reversed(contents), strict=True):
        path.write_bytes(content)
    run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    assert names(sets_of(tmp_path / "data")["test"]) == lines_of("testset_v")


def test_again_nothing_is_done_and_with_another_option_all(prepare, corpus, tmp_path):
    words = ["--corpus", corpus, "--out", tmp_path / "data"]
    run(prepare.main, *words)
    archive = tmp_path / "data/archives/lines.ark"
    before = archive.stat().st_mtime_ns
    assert run(prepare.main, *words).output == f"{tmp_path / 'data'}: complete\n"
    assert archive.stat().st_mtime_ns == before
    shutil.rmtree(tmp_path / "data/archives")
    assert "complete" not in run(prepare.main, *words).output
    assert validate(tmp_path / "data/test") == []
    assert "train: " in run(prepare.main, *words, "--clip", "20").output
    assert archive.stat().st_mtime_ns != before
    largest = max(np.abs(read_vectors(x)).max() for d in sets_of(tmp_path / "data").values() for x in d.feats.values())
    assert largest == 20


def edit(corpus, old, new, path=LINE):
    text = (corpus / path).read_text(encoding="latin-1")
    assert old in text
    (corpus / path).write_text(text.replace(old, new, 1), encoding="latin-1")


def test_far_offsets_are_kept_and_told(prepare, corpus, tmp_path):
    first = re.search(r'<Point x="\d+"', (corpus / LINE).read_text()).group()
    edit(corpus, first, '<Point x="-4000"')
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    assert "1 lines have offsets beyond 500 units, as of lost points (--clip bounds them): a01-020x-02" in done.errors
    everything = [x for d in sets_of(tmp_path / "data").values() for u, x in d.feats.items() if "a01-020x-02" in u]
    assert read_vectors(everything[0])[0, 1] > 4500


def test_the_change_to_published_densities(prepare, corpus, tmp_path):
    """The same density of the same offsets, normalised as the published code does and as ours."""
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    printed = float(re.search(r"add (\S+) nats per frame to ours", done.output).group(1))
    train = load_data_dir(tmp_path / "data/train")
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
ONE = "<WhiteboardCaptureSession>\n<StrokeSet><Stroke>{}</Stroke></StrokeSet>\n</WhiteboardCaptureSession>"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: edit(c, "<WhiteboardCaptureSession>", f"{BOMB}\n<WhiteboardCaptureSession>"),
            ":2: declares a docum",
        ),
        (lambda c: edit(c, "<WhiteboardCaptureSession>", f"{EXTERNAL}<WhiteboardCaptureSession>"), ":2: declares a"),
        (lambda c: (c / LINE).write_text(""), ":1: not well-formed XML (no element found)"),
        (lambda c: (c / LINE).write_text(ONE.replace("</Stroke>", "")), ":2: not well-formed XML (mismatched tag)"),
        (lambda c: (c / LINE).write_bytes((c / LINE).read_bytes()[:700]), "not well-formed XML"),
        (lambda c: (c / LINE).write_text(ONE.format("")), ":2: a stroke without points"),
        (lambda c: edit(c, "    </Stroke>", '</Stroke>\n<Stroke colour="black"/>'), "a stroke without points"),
        (lambda c: (c / LINE).write_text(re.sub(r"<Stroke>.*</Stroke>", "", ONE)), ":3: 0 points in all"),
        (lambda c: (c / LINE).write_text(ONE.format('<Point x="1" y="2"/>')), ":3: 1 points in all; expected two"),
        (lambda c: (c / LINE).write_text(ONE.format('<Point x="NaN" y="2"/>')), ":2: a point with 'NaN' for x"),
        (lambda c: (c / LINE).write_text(ONE.format('\n<Point x="1" y="1e400"/>')), ":3: a point with '1e400' for y"),
        (lambda c: (c / LINE).write_text(ONE.format('<Point x="1"/>')), ":2: a point with '' for y"),
        (lambda c: (c / LINE).write_text("<html>\n</html>"), ":1: <html>; expected <WhiteboardCaptureSession>"),
        (
            lambda c: (c / LINE).write_text(ONE.replace("Stroke>", "Curve>").format('<Point x="1" y="2"/>')),
            ":2: a <Poi",
        ),
    ],
)
def test_a_damaged_line_is_named_by_file_and_line(prepare, corpus, tmp_path, change, message):
    change(corpus)
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    assert done.status == 1
    last = done.errors.splitlines()[-1]
    assert last.startswith(f"error: {corpus / LINE}:") and message in last
    assert last.endswith("; get an intact copy, or --leave_out a01-020x-02")
    assert not (tmp_path / "data/train").exists() and not list((tmp_path / "data").rglob("*.ark"))
    # and can be left out by name
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data", "--leave_out", "A01-020x-02")
    assert done.status == 0 and "left out (--leave_out): a01-020x-02\n" in done.output
    assert sum(len(data.utt2spk) for data in sets_of(tmp_path / "data").values()) == 38


def test_all_damage_is_told_at_once(prepare, corpus, tmp_path):
    for path in (LINE, "lineStrokes/k04/k04-318/k04-318z-03.xml"):
        (corpus / path).write_text("")
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    assert done.errors.count("error: ") == 2 and "(2 errors in total; nothing was written)" in done.errors


def copy(corpus, name):
    (corpus / "copy").mkdir()
    (corpus / "copy" / name).write_bytes((corpus / LINE).read_bytes())


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (lambda c: c.rename(c.with_name("x")), [], "no such directory; give the directory of the corpus"),
        (lambda c: (c / "lineStrokes").rename(c.parent / "x"), [], "no lines of handwriting; looked for files like"),
        (lambda c: (c / "task1/testset_t.txt").unlink(), [], "no testset_t.txt below it; get the lists"),
        (lambda c: edit(c, "k04-318z", "k04_318z", "task1/testset_f.txt"), [], "testset_f.txt:2: 'k04_318z'; expected"),
        (lambda c: edit(c, "k04-318z", "b06-004", "task1/testset_f.txt"), [], "testset_f.txt:2: form b06-004 is also"),
        (lambda c: copy(c, "a01-020x-02.XML"), [], f"{LINE}: the same file as"),
        (lambda c: (c / "forms.txt").unlink() or edit(c, "</General>", "", "original/e02/e02-025/strokes.xml"), [], ""),
        (lambda c: None, ["--leave_out", "a01-020x-09"], "--leave_out a01-020x-09: no such line in the sets"),
    ],
)
def test_what_is_wrong_with_a_copy_is_named(prepare, corpus, tmp_path, change, words, message):
    change(corpus)
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data", *words)
    if not message:  # a fault below the form's name does not matter
        assert done.status == 0
        return
    assert done.status == 1
    assert message in done.errors.splitlines()[-1]
    assert not (tmp_path / "data/train").exists()


def test_a_broken_original_is_named(prepare, tmp_path):
    corpus = iam_ondb.make(tmp_path / "corpus", words=1, tables=False)
    path = "original/e02/e02-025/strokes.xml"
    edit(corpus, "<General>", "<General", path)
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    assert done.status == 1 and f"error: {corpus / path}:3: not well-formed XML" in done.errors


def test_missing_lines_are_named(prepare, corpus, tmp_path):
    (corpus / LINE).unlink()
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    assert done.status == 0
    assert "1 forms have gaps between their lines: a01-020x" in done.errors
    assert "(no text): a01-020x" in done.errors
    texts = {u for data in sets_of(tmp_path / "data").values() for u in data.text}
    assert not any("a01-020x" in utterance for utterance in texts)


def test_a_set_that_would_be_empty_is_refused(prepare, corpus, tmp_path):
    for form in iam_ondb.FORMS["testset_v"]:
        for number in (1, 2, 3):
            iam_ondb.strokes_path(corpus, form, number).unlink()
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    assert done.status == 1 and "test: no utterances are left for this set" in done.errors
    assert "2 of the 2 forms in testset_v.txt have no lines in this copy: a02-050, e02-025" in done.errors


def test_a_linked_part_of_the_corpus_is_read(prepare, corpus, tmp_path):
    before = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "before")
    (corpus / "lineStrokes").rename(tmp_path / "elsewhere")
    (corpus / "lineStrokes").symlink_to(tmp_path / "elsewhere")
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    assert (done.status, done.output) == (0, before.output)


@pytest.mark.parametrize("words", [["--clip", "0"], ["--clip", "nan"], ["--division", "x"]])
def test_wrong_usage(prepare, corpus, tmp_path, words):
    done = run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data", *words)
    assert done.status == 2 and done.errors.count("\n") == 1


@pytest.mark.parametrize("option", ["--sample_frames", "--prefix_frames"])
def test_lengths_of_stage_5_are_checked_before_anything_is_done(option):
    done = subprocess.run(["bash", "run.sh", option, "0"], cwd=RECIPE, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"{option} '0': expected an integer from 1" in done.stderr


def test_download_says_where_to_get_it(tmp_path):
    words = ["bash", "local/download.sh", "--corpus", str(tmp_path / "none")]
    done = subprocess.run(words, cwd=RECIPE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    for word in ("register at https://", "IAM_ONDB= in db.sh", "--iam_ondb DIR"):
        assert word in done.stderr
    done = subprocess.run([*words[:-1], str(tmp_path)], cwd=RECIPE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0


# --- Pages ------------------------------------------------------------------------------------------------------------


def test_strokes_of_frames(draw):
    frames = np.array([[0, 1, 0], [1, 1, 1], [1, 5, 0], [0, 2, 2], [0, 0, 1]], np.float32)
    strokes = [stroke.tolist() for stroke in draw.strokes_of(frames)]
    assert strokes == [[[0, 0], [1, 0], [2, 1]], [[7, 1]], [[9, 3], [9, 4]]]
    frames[-1, 0] = 1
    assert len(draw.strokes_of(frames)) == 3


@pytest.fixture
def sampled(prepare, corpus, tmp_path):
    """A dump of the imitation's test set, and what stage 5 leaves of two experiments."""
    from speechlvm.bin.dump import main as dump

    run(prepare.main, "--corpus", corpus, "--out", tmp_path / "data")
    dump(["--data", str(tmp_path / "data/test"), "--out", str(tmp_path / "dump"), "--kind", "vectors"])
    data = [read_vectors(x) for x in load_data_dir(tmp_path / "data/test").feats.values()]
    for model in ("one", "two"):
        samples = tmp_path / "exp" / model / "seed1/samples"
        samples.mkdir(parents=True)
        index = []
        for row, kind in enumerate(("prior", "prior", "continuation")):
            np.save(samples / f"{kind}_{row}.npy", data[row])
            index.append({"name": f"{kind}_{row}", "kind": kind, "marks": [9] if kind == "continuation" else []})
        (samples / "samples.json").write_text(json.dumps(index))
        (samples / "done.json").write_text(json.dumps({"model": model}))
    return tmp_path


def test_a_page_for_each_model_and_one_for_all(draw, sampled):
    words = ["--exp", sampled / "exp", "--dump", sampled / "dump", "--models", "one two", "--seeds", "1"]
    done = run(draw.main, *words)
    assert done.status == 0, done.errors
    pages = sampled / "exp/handwriting"
    for stem in ("one_seed1", "two_seed1", "figure3"):
        assert (pages / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
        assert (pages / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    assert run(draw.main, *words).output == f"{pages}: complete\n"
    (sampled / "exp/one/seed1/samples/done.json").write_text("{}")
    assert run(draw.main, *words).output == f"{pages}: 3 pages\n"
    assert run(draw.main, *words[:-3], "one", *words[-2:]).output == f"{pages}: 2 pages\n"
    missing = run(draw.main, *words[:-3], "three", *words[-2:])
    assert missing.status == 1 and "three/seed1/samples/done.json: missing; run the stage" in missing.errors


def test_strokes_are_drawn_apart_at_one_scale_with_the_real_beginning_in_grey(draw):
    axis = FakeAxis()
    frames = np.array([[0, 10, 0], [1, 10, 10], [0, 10, 0], [1, 0, 4], [1, 30, 0]], np.float32)
    draw.draw_lines(axis, [("a", frames, 0), ("b", frames, 3)])
    first, second = axis.lines[:3], axis.lines[3:]
    assert [colour for _, colour in first] == ["black"] * 3
    assert [len(points) for points, _ in first] == [3, 2, 1]
    assert first[0][0].tolist() == [[0, 0], [10, 0], [20, 10]]
    below = second[0][0][0, 1]
    assert below > 14  # the second line starts below the first one's end
    np.testing.assert_allclose(second[0][0], first[0][0] + [0, below])
    assert [(len(points), colour) for points, colour in second] == [(3, "0.6"), (1, "0.6"), (2, "black"), (1, "black")]
    assert axis.aspect == "equal" and axis.inverted


class FakeAxis:
    def __init__(self):
        self.lines, self.inverted, self.aspect = [], False, None

    def plot(self, x, y, color, **_):
        if len(x):
            self.lines.append((np.stack([x, y], 1), color))

    def text(self, *_, **__):
        pass

    def set_aspect(self, aspect, anchor):
        self.aspect = aspect

    def invert_yaxis(self):
        self.inverted = True

    def set_axis_off(self):
        pass


# --- Configurations ---------------------------------------------------------------------------------------------------

CONFIGS = sorted((RECIPE / "conf").glob("*.yaml"))
TABLES = {table.table: table for table in load_tables(RECIPE / "conf/tables")}
OUTPUTS = {"diagonal": (1, False), "bivariate": (1, True), "mixture of 20 bivariate": (20, True)}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_builds_and_is_what_its_rows_say(path):
    config = load_config(path)
    observation = VectorObservation(CHANNELS, [0.0] * 3, [1.0] * 3)
    with torch.device("meta"):  # shapes without memory
        model = build(config, observation, seed=1)
    rows = [(name, row) for name, table in TABLES.items() for row in table.rows if row.experiment == path.stem]
    assert rows, "in no table"
    conf = config.model_conf
    for name, row in rows:
        output, _, sizes = row.configuration.partition("; ")
        found = config.distribution_conf
        assert (found["components"], found["correlated"]) == OUTPUTS[output]
        assert row.s == model.stack == 1 and row.distribution == config.distribution
        head = path.read_text().splitlines()[0]
        assert {"B2": "Table 2", "B4c": "4c", "B5c": "5c"}[name] in head
        keys = {"Dd": "hidden", "Dz": "latent", "Dc": "channels", "S": "stochastic_layers"}
        for key, value in re.findall(r"(\w+)=(\d+)", sizes):
            assert conf[keys[key]] == int(value)
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
    named = {row.experiment for table in TABLES.values() for row in table.rows}
    assert named == {path.stem for path in CONFIGS}
