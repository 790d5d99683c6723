"""Stage 7's program: results and figures of each analysis, nothing done twice, and what stops it."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from imitations.representations import make
from programs import call

from speechlvm.bin import analyse

SPEAKERS = {
    "a": ("f", 160.0),
    "b": ("m", 170.0),
    "c": ("f", 178.0),
    "d": ("m", 180.0),
    "e": ("m", 171.0),
    "g": ("m", 182.0),
}
LABELS = ["h#", "s", "ih", "n", "pcl", "h#"]
UTTERANCES = 3


def write(root, name="test", prefix="", source="model", representations=("z1",), kind="latent", **left_out):
    """A set in which everything tells everything."""
    draws, values, phones = np.random.default_rng(0), {}, {}
    for speaker, (gender, height) in SPEAKERS.items():
        for take in range(UTTERANCES):
            places = np.zeros((12, 8))
            places[:, 0], places[:, 1] = 9 * (gender == "m"), 9 * (height > 175)
            places[np.arange(12), 2 + np.repeat(np.arange(6) % 5, 2)] = 5
            utterance = f"{prefix}{speaker}_{take}"
            values[utterance] = {key: places + 0.3 * draws.standard_normal((12, 8)) for key in representations}
            phones[utterance] = [(128 * i, 128 * i + 128, label) for i, label in enumerate(LABELS)]
    known = {
        "phones": phones,
        "gender": {prefix + speaker: gender for speaker, (gender, _) in SPEAKERS.items()},
        "height_cm": {prefix + speaker: height for speaker, (_, height) in SPEAKERS.items()},
    }
    known.update(left_out)
    return make(root, name, values, source=source, kind=kind, **known)


def run(analyses, sets, out, *options):
    stores, directories = zip(*sets, strict=True)
    words = ("--analysis", *analyses.split(), "--latents", *stores, "--data", *directories, "--out", out, *options)
    return call(analyse.main, *words)


def written(done):
    """Names of the analyses whose results a run has written."""
    return [Path(line).name for line in done.stdout.splitlines() if line.startswith("written: ")]


@pytest.mark.parametrize(
    ("analysis", "classes"),
    [
        ("phones", {"h#": 6, "ih": 3, "n": 3, "pcl": 3, "s": 3}),
        ("gender", {"f": 6, "m": 12}),
        ("height", {"< 175 cm": 6, "175-185 cm": 6}),
    ],
)
def test_results_with_those_of_the_spectra(tmp_path, monkeypatch, analysis, classes):
    own = write(tmp_path / "m", representations=("z1", "z2") if analysis == "phones" else ("z1",))
    spectra = write(tmp_path / "s", source="spectra", representations=("mel",), kind="spectrum")
    options = ["--speaker", "c", "--speakers", "2"] if analysis == "phones" else []
    with monkeypatch.context() as patch:
        patch.setattr("speechlvm.reporting.latent_figures.draw", lambda *_: None)
        assert run(analysis, [spectra], tmp_path / "spectra", *options).returncode == 0
    out = tmp_path / "out" / analysis
    done = run(analysis, [own], tmp_path / "out", "--spectra", tmp_path / "spectra", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"written: {out}\n")
    result = json.loads((out / "result.json").read_text())
    assert (result["analysis"], result["source"], result["set"]) == (analysis, "model", ["test"])
    part = result["groups"]["men"] if analysis == "height" else result
    part = result["speakers"]["c"] if analysis == "phones" else part
    assert part["classes"] == classes
    assert set(part["representations"]) == ({"z1", "z2"} if analysis == "phones" else {"z1"})
    assert all(one["curves"]["leave_one_out"]["accuracy"][0] == 1.0 for one in part["representations"].values())
    for name in ("accuracy", "clusters"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take most of the time, and are tested above."""
    monkeypatch.setattr("speechlvm.reporting.latent_figures.draw", lambda *_: None)


def test_nothing_is_done_twice_and_changes_are_noticed(tmp_path, undrawn):
    own, out = write(tmp_path), tmp_path / "out"
    result = out / "gender" / "result.json"
    assert run("gender", [own], out).returncode == 0
    written = result.stat().st_mtime_ns
    assert run("gender", [own], out).stdout == f"{out}: complete\n"
    assert result.stat().st_mtime_ns == written
    assert "written:" in run("gender", [own], out, "--largest_k", "5").stdout
    genders = own[1] / "spk2gender"
    genders.write_text(genders.read_text().replace("e m", "e f"))
    assert "written:" in run("gender", [own], out, "--largest_k", "5").stdout
    assert json.loads(result.read_text())["classes"] == {"f": 9, "m": 9}
    (own[0] / "done.json").write_text('{"made": "again"}')
    assert "written:" in run("gender", [own], out, "--largest_k", "5").stdout


def test_only_incomplete_analyses_are_run(tmp_path, undrawn):
    own, out = write(tmp_path), tmp_path / "out"
    assert run("gender", [own], out).returncode == 0
    assert run("gender height", [own], out, "--check").returncode == 1
    assert written(run("gender height", [own], out)) == ["height"]
    assert run("gender height", [own], out, "--check").returncode == 0


def test_an_analysis_that_fails_or_lacks_labels_does_not_stop_the_others(tmp_path, undrawn):
    (store, data), out = write(tmp_path), tmp_path / "out"
    (data / "phones").unlink()
    named = run("phones gender height", [(store, data)], out)
    reason = f"{data / 'phones'}: no such file, and this analysis needs it"
    assert (named.returncode, named.stderr) == (1, f"error: {reason}\n")
    assert written(named) == ["gender", "height"]
    optional = run("phones gender height", [(store, data)], out, "--optional")
    assert (optional.returncode, optional.stdout) == (0, f"analysis 'phones' skipped: {reason}\n")
    other = write(tmp_path / "other", prefix="x")
    mixed = run("gender height levels", [(store, other[1])], out)
    assert mixed.returncode == 1 and mixed.stderr.count("give the data directory of the latents") == 1
    assert written(mixed) == ["levels"]


def test_other_phones_left_out_are_another_analysis(tmp_path, undrawn):
    own, out = write(tmp_path), tmp_path / "out"
    for skipped, said in (("", "written"), ("pcl h#", "written"), ("h# pcl h#", "complete"), ("h#", "written")):
        assert said in run("phones", [own], out, "--speakers", "1", "--skip_phones", *skipped.split()).stdout
        result = json.loads((out / "phones" / "result.json").read_text())
        assert not set(result["classes"]) & set(skipped.split()) and result["skipped"] == sorted(set(skipped.split()))


def test_a_run_that_failed_is_not_complete(tmp_path, monkeypatch, undrawn):
    own, out = write(tmp_path), tmp_path / "out"
    assert run("gender", [own], out).returncode == 0

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("speechlvm.reporting.latent_figures.draw", full)
    assert run("gender", [own], out, "--largest_k", "3").returncode == 1
    assert not (out / "gender" / "done.json").exists()


def test_levels_of_pooled_sets(tmp_path):
    sets = [write(tmp_path, "train", "x"), write(tmp_path, "test", "y")]
    done = run("levels", sets, tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads((tmp_path / "out/levels/result.json").read_text())
    assert (result["set"], result["items"], set(result["representations"])) == (["train", "test"], 36, {"z1"})
    assert (tmp_path / "out/levels/levels.png").exists()


@pytest.mark.parametrize(("analysis", "name"), [("phones", "phones"), ("height", "spk2height")])
def test_missing_labels(tmp_path, undrawn, analysis, name):
    own, out = write(tmp_path), tmp_path / "out"
    assert run(analysis, [own], out).returncode == 0
    (own[1] / name).unlink()
    line = f"{own[1] / name}: no such file, and this analysis needs it"
    stopped = run(analysis, [own], out)
    assert (stopped.returncode, stopped.stderr) == (1, f"error: {line}\n")
    skipped = run(analysis, [own], out, "--optional")
    assert (skipped.returncode, skipped.stdout) == (0, f"analysis '{analysis}' skipped: {line}\n")
    assert [path.name for path in (out / analysis).iterdir()] == ["skipped.json"]  # nothing stays of the earlier labels
    assert run(analysis, [own], out, "--optional", "--check").returncode == 0
    assert run(analysis, [own], out, "--check").returncode == 1  # asked for by name, it fails


def test_pieces_of_recordings_have_levels_but_no_labels(tmp_path, undrawn):
    (store, _), (_, data), out = write(tmp_path / "x", prefix="piece"), write(tmp_path / "y"), tmp_path / "out"
    info = json.loads((store / "info.json").read_text())
    (store / "info.json").write_text(json.dumps({**info, "segment_frames": 8000}))
    done = run("gender levels", [(store, data)], out, "--optional")
    assert (done.returncode, done.stderr) == (0, "") and (out / "levels" / "result.json").exists()
    assert "cut into segments of 8000 frames" in done.stdout
    assert run("gender levels", [(store, data)], out).returncode == 1


def test_nothing_to_be_told_apart(tmp_path):
    own = write(tmp_path, gender=dict.fromkeys(SPEAKERS, "f"))
    stopped = run("gender", [own], tmp_path / "out")
    assert stopped.returncode == 1
    assert stopped.stderr == (
        "error: utterances by gender: classes (and items): f (18); expected two classes of at least two items each\n"
    )
    for options in ([], ["--spectra", tmp_path / "skipped"]):
        skipped = run("gender", [own], tmp_path / "out", "--optional", *options)
        assert (skipped.returncode, skipped.stdout[:34]) == (0, "analysis 'gender' skipped: utteran")
    assert [path.name for path in (tmp_path / "out" / "gender").iterdir()] == ["skipped.json"]


def test_what_is_wrong_is_an_error_even_where_the_analysis_is_optional(tmp_path):
    own, other = write(tmp_path / "m"), write(tmp_path / "o", prefix="x")
    mixed = run("gender", [(own[0], other[1])], tmp_path / "out", "--optional")
    assert mixed.returncode == 1 and "give the data directory of the latents" in mixed.stderr
    assert mixed.stderr.count("\n") == 1
    large = run("gender", [own], tmp_path / "out", "--optional", "--largest_k", "18")
    assert large.returncode == 1 and "give at most 17" in large.stderr
    assert not (tmp_path / "out").exists()


def test_spectra_of_other_items(tmp_path, monkeypatch):
    own = write(tmp_path / "m")
    spectra = write(
        tmp_path / "s", source="spectra", representations=("mel",), gender={s: "fm"[s in "ab"] for s in SPEAKERS}
    )
    with monkeypatch.context() as patch:
        patch.setattr("speechlvm.reporting.latent_figures.draw", lambda *_: None)
        assert run("gender", [spectra], tmp_path / "spectra").returncode == 0
    stopped = run("gender", [own], tmp_path / "out", "--spectra", tmp_path / "spectra")
    assert stopped.returncode == 1 and "are of different items; run both with the same data" in stopped.stderr
    missing = run("phones", [own], tmp_path / "out", "--spectra", tmp_path / "spectra")
    assert missing.returncode == 1 and "spectra/phones/result.json: missing; run the stage" in missing.stderr
    assert not list((tmp_path / "out").rglob("done.json"))


@pytest.mark.parametrize(
    "options",
    [("--data", "x", "y"), ("--speakers", "0")],
)
def test_wrong_usage(tmp_path, options):
    store, data = tmp_path / "latents", tmp_path / "data"
    words = ["--analysis", "gender", "--latents", store, "--data", data, "--out", tmp_path / "out", *options]
    assert call(analyse.main, *words).returncode == 2


def test_incomplete_latents(tmp_path):
    own = write(tmp_path)
    (own[0] / "done.json").unlink()
    stopped = run("gender", [own], tmp_path / "out")
    assert stopped.returncode == 1 and "latents: no complete representations; run stage 6 (latents)" in stopped.stderr
