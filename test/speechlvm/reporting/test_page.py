"""The page of an experiment: its structure, what cannot get into it, and what is said of what is missing."""

import base64
import io
import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from speechlvm.bin import page
from speechlvm.data.audio import read_audio
from speechlvm.utils.errors import UserError

VOID = {"meta", "img", "link"}


class Reader(HTMLParser):
    """Elements as (name, attributes), text by heading; fails where elements are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append((self.open[-1], data))

    def all(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]

    def text(self, name):
        return [data for tag, data in self.texts if tag == name]


def make(directory, *options):
    page.main(["--exp", str(directory), *options])
    return (directory / "index.html").read_text(encoding="utf-8")


def test_one_file_holds_everything(make_experiment):
    directory = make_experiment()
    read = Reader(make(directory))
    assert read.text("h1") == ["cwvae/seed1, trained on train"]
    assert read.text("h2") == ["Model", "Scores", "Training", "Samples", "Latents", "Probes"]
    assert read.text("h3")[:3] == ["Prior samples", "Continuations", "One level redrawn: z2"]
    assert [a["href"] for a in read.all("a")] == [
        "#main", "#model", "#scores", "#training", "#samples", "#latents", "#probes",
    ]  # fmt: skip
    ids = {attributes["id"] for _, attributes in read.elements if "id" in attributes}
    assert all(a["href"][1:] in ids for a in read.all("a"))
    addresses = [attributes[key] for _, attributes in read.elements for key in ("src", "href") if key in attributes]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    pictures = read.all("img")
    assert len(pictures) == 1 + 4 + 4  # learning curve, sounds, analyses
    assert all(picture["alt"].strip() for picture in pictures)
    assert ("th", {"colspan": "2", "scope": "colgroup"}) in read.elements  # both sizes of the probes' training data
    words = " ".join(data for _, data in read.texts)
    for piece in ("12 345", "≤ 12.500 bits per frame", "Best on the validation set after 300 steps",
                  "level z2; temperature 0.8; of u1, u2; to compare with prior_0", "Drawn from the model.",
                  "none of women", "z2 (collapsed)", "7754.4"):  # fmt: skip
        assert piece in words, piece


def test_a_compressed_file_is_beside_the_scores(make_experiment, write_file):
    directory = make_experiment()
    before = make(directory)
    write_file("cwvae/seed1")
    captions = Reader(make(directory)).text("caption")
    assert captions[1] == "Files: what utterances take, losslessly compressed"
    assert captions[:1] + captions[2:] == Reader(before).text("caption")


def test_sounds_are_those_of_stage_5(make_experiment):
    directory = make_experiment()
    read = Reader(make(directory))
    names = [entry["name"] for entry in json.loads((directory / "samples/samples.json").read_text())]
    assert [audio["aria-label"] for audio in read.all("audio")] == names
    for name, audio in zip(names, read.all("audio"), strict=True):
        kind, _, content = audio["src"].partition(";base64,")
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)), dtype="int16")
        assert (kind, rate) == ("data:audio/flac", 16000)
        np.testing.assert_array_equal(samples, read_audio(directory / "samples" / f"{name}.wav"))


def test_the_same_inputs_give_the_same_bytes_once(make_experiment, capsys):
    directory = make_experiment()
    first = make(directory)
    written = (directory / "index.html").stat().st_mtime_ns
    assert make(directory) == first and "complete" in capsys.readouterr().out
    assert (directory / "index.html").stat().st_mtime_ns == written
    (directory / "index.html").unlink()
    assert make(directory) == first
    assert make(directory, "--title", "another") != first
    (directory / "analysis/phones/done.json").unlink()  # its stage is at work, or was interrupted
    assert "Phones accuracy" not in make(directory)


def test_nothing_is_injected(make_experiment):
    hostile = '<img src=x onerror="document.title=1">'
    extra = [{"name": "u'\"><script>1<", "kind": "<b>kind", "marks": [], "description": hostile, "level": hostile}]
    plain = Reader(make(make_experiment("plain")))
    read = Reader(make(make_experiment("a<b>", extra), "--title", f"</title></style>{hostile}"))
    assert read.text("h1") == [f"</title></style>{hostile}"] == read.text("title")
    assert any(hostile in text for text in read.text("figcaption"))
    assert [a["aria-label"] for a in read.all("audio")][-1] == extra[0]["name"]
    assert len(read.all("script")) == len(plain.all("script")) == 1
    assert len(read.all("img")) == len(plain.all("img")) + 1 and not read.all("b")
    assert not any(key.startswith("on") for _, attributes in read.elements for key in attributes)


def test_the_policy_allows_nothing_but_the_page_itself(make_experiment):
    [policy] = [m["content"] for m in Reader(make(make_experiment())).all("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:;")
    assert "unsafe" not in policy and "http" not in policy and policy.count("'sha256-") == 2


def test_what_is_missing_is_said(make_experiment):
    directory = make_experiment()
    for name in ("samples", "analysis", "probes", "score_test"):
        shutil.rmtree(directory / name)
    for name in ("config.yaml", "history.jsonl"):
        (directory / name).unlink()
    assert Reader(make(directory)).text("p") == [
        "No model yet: stage 3 (train) makes it.",
        "No scores yet: stage 4 (score) makes them.",
        "No learning curve yet: stage 3 (train) makes it.",
        "No samples yet: stage 5 (sample and reconstruct) makes them.",
        "No analyses yet: stage 7 (latent analysis) makes them.",
        "No probes yet: stage 8 (probes) makes them.",
    ]


def test_spectra_have_no_model(make_experiment):
    directory = make_experiment()
    shutil.move(directory / "analysis", directory.parents[1] / "spectra" / "analysis")
    read = Reader(make(directory.parents[1] / "spectra"))
    assert (read.text("h1"), read.text("h2")) == (["spectra of train"], ["Latents", "Probes"])


def test_vectors_have_pictures(make_experiment, png):
    directory = make_experiment()
    for path in (directory / "samples").glob("*.wav"):
        path.with_suffix(".npy").touch()
        path.unlink()
    for name in ("prior", "continuation", "resampled_z2"):
        (directory / "samples" / f"{name}.png").write_bytes(png)
    (directory / "motion").mkdir()
    (directory / "motion" / "films.png").write_bytes(png)
    read = Reader(make(directory))
    assert not read.all("audio") and read.text("h2")[-1] == "More pictures"
    alts = [picture["alt"] for picture in read.all("img")]
    assert [a for a in alts if "(samples)" in a] == [
        "Prior (samples)",
        "Continuation (samples)",
        "Resampled z2 (samples)",
    ]
    assert "Films (motion)" in alts


def test_what_is_damaged_is_named_and_all_else_is_shown(make_experiment):
    directory = make_experiment()
    names = ["score_test/result.json", "samples/samples.json", "analysis/phones/result.json"]
    for name in names:
        (directory / name).write_text("{")
    for _ in range(2):  # it is not taken for complete
        with pytest.raises(
            UserError, match=f"{names[0]}: not valid JSON.*2 more; .*index.html lists all.*else is in .*index.html"
        ):
            make(directory)
    read = Reader((directory / "index.html").read_text(encoding="utf-8"))
    errors = [data for _, data in read.texts if data.startswith("Left out: ")]
    assert [sum(name in error for error in errors) for name in names] == [1, 1, 1]
    assert read.text("h2") == ["Model", "Scores", "Training", "Samples", "Latents", "Probes"]


def test_a_sound_that_is_gone_is_named_and_its_picture_shown(make_experiment, png):
    directory = make_experiment()
    (directory / "samples" / "prior.png").write_bytes(png)
    (directory / "samples" / "prior_1.wav").unlink()
    (directory / "samples" / "prior_0.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"prior_0.wav: .*\(and 1 more"):
        make(directory)
    read = Reader((directory / "index.html").read_text(encoding="utf-8"))
    assert "prior_1.wav: " in " ".join(read.text("p")) and "Prior (samples)" in read.text("figcaption")


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        page.main(["--exp", str(tmp_path / "none")])
