"""The program of stage 10: what it writes from scores in any state, and how it says what is wrong."""

import json
import math
import subprocess
import sys

import pytest

from speechlvm.bin import likelihoods, report
from speechlvm.utils.errors import ConfigError, UserError

BITS = 150 * math.log(2)  # nats that one bit per frame is in an utterance of write_result's


def rows(*experiments, **fields):
    return [{"system": "x", "experiment": experiment, **fields} for experiment in experiments]


def line_of(text, start):
    [line] = [line for line in text.splitlines() if line.startswith(f"| {start} ")]
    return [cell.strip() for cell in line[1:-1].split("|")]


def test_every_row_and_set_is_a_line_with_all_digits(write_result, write_table, run, records):
    for seed, bits in ((1, 12.1), (2, 12.3)):
        write_result("vrnn", -bits * BITS, seed, coding="mulaw", bound="elbo", steps=10 * seed, hours=1.0 * seed,
                     distribution={"name": "dmol", "components": 10})  # fmt: skip
    write_result("flac", -8.5 * BITS, coding="linear", bound="code-length", steps=None, hours=None, distribution={})
    published = {"test": 12.54, "dev": 12.5}
    table = [
        {
            "s": 64,
            "system": "VRNN",
            "configuration": "a, b",
            "experiment": "vrnn",
            "published": published,
            "mark": "<=",
        },
        {"system": "FLAC", "experiment": "flac"},
    ]
    write_table(table, unit="bits_per_frame", coding="mulaw", sets=["test", "dev"])
    assert line_of(run(), 64)[3:] == [
        "<=12.54", "<=12.200 +-0.141", "-0.340", "<=12.50", "", "", "ELBO", "1.5 h", "15", "2", "vrnn",
    ]  # fmt: skip
    test, dev, flac, _ = records()
    expected = {
        "table": "T", "s": "64", "system": "VRNN", "configuration": "a, b", "at": "", "experiment": "vrnn",
        "train_set": "train", "set": "test", "coding": "mulaw", "unit": "bits_per_frame", "published_mark": "<=",
        "published": "12.54", "bound": "elbo", "seeds": "2", "training_steps": "15.0", "training_hours": "1.5",
        "parameters": "10", "distribution": "dmol", "components": "10", "minimum_std": "",
    }  # fmt: skip
    numbers = {"ours": 12.2, "difference": 12.2 - 12.54, "standard_deviation": 0.2 / math.sqrt(2)}
    assert {key: value for key, value in test.items() if key not in numbers} == expected
    assert {key: float(test[key]) for key in numbers} == pytest.approx(numbers, abs=1e-12)
    assert (dev["set"], dev["published"], dev["published_mark"]) == ("dev", "12.5", "<=")
    blank = ("bound", "ours", "standard_deviation", "difference", "seeds", "training_hours", "training_steps")
    assert [dev[key] for key in blank] == [""] * 7
    assert (flac["coding"], flac["bound"], flac["seeds"], flac["difference"]) == ("linear", "code-length", "", "")
    assert float(flac["ours"]) == pytest.approx(8.5)


def test_latex_has_the_cells_of_markdown(write_result, write_table, run, tmp_path):
    write_result("vrnn_s64", -7368.4, bound="elbo")
    write_table([{"s": 200, "system": "A & B", "experiment": "vrnn_s64", "published": {"test": -7443}, "mark": ">="}])
    cells = line_of(run(), 200)
    assert cells[3:7] == [">=-7443", ">=-7368", "+75", "ELBO"]
    latex = (tmp_path / "exp/train/tables/T.tex").read_text(encoding="utf-8")
    assert r"200 & A \& B &  & $\geq$$-$7443 & $\geq$$-$7368 & +75 & ELBO & gaussian, std $\geq$ 0.01 &" in latex


def test_figures_of_another_corpus_are_not_subtracted(write_result, write_table, run, records):
    write_result("a", 10.0)
    write_table(rows("a", published={"test": 5}), comparable=False)
    assert line_of(run(), "-")[3:6] == ["5", "10", "exact"]
    assert (records()[0]["ours"], records()[0]["difference"]) == ("10.0", "")


def test_only_the_chosen_tables_are_written(write_table, run, tmp_path):
    for name in "ABC":
        write_table(rows("a", at=1.0), name, axis="layers")
    text = run("--only", "C A")
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Table C: t", "## Table A: t"]
    assert sorted(path.name for path in (tmp_path / "exp/train/tables").iterdir()) == [
        "A.csv", "A.tex", "C.csv", "C.tex", "done.json",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="table 'D' is unknown; expected A, B, C"):
        run("--only", "D")


def test_densities_are_all_shown_the_most_likely_first(write_result, write_table, run):
    for seed, nats in ((1, -30.0), (2, -60.0)):
        distribution = {"name": "gmm", "components": 20, "minimum_std": 0.0}
        terms = {"log_likelihood": 0.1, "kl_z1": 0.25, "kl_z2": 0.1 * seed}
        write_result("worse_tagged", nats, seed, bound="elbo", distribution=distribution, terms_nats_per_frame=terms)
    write_result("better", 15.0)
    write_table(rows("better"))
    text = run()
    assert "## All densities on `test` (2 utterances, 300 frames)" in text and "## All results" not in text
    overview = text.split("## All densities")[1]
    assert overview.index("| better ") < overview.index("| worse_tagged ")
    assert line_of(text, "worse_tagged")[1:6] == [
        ">=-45 +-21", ">=-0.300 +-0.141", "ELBO", "gmm(20), no floor", "0.400",
    ]  # fmt: skip
    assert line_of(text, "better")[1:6] == ["15", "0.100", "exact", "gaussian, std >= 0.01", ""]


def test_intervals_and_shares_of_pcm_are_of_one_seed(write_result, write_table, run):
    for seed, name in ((1, "one"), (1, "two"), (2, "two")):
        for coding, bits in (("mulaw", 13.0), ("linear", 8.5), ("mulaw-pcm", 8.0)):
            write_result(name, -bits * BITS, seed, f"score_{coding}", coding=coding, bound="elbo",
                         bits_per_frame_interval=[bits - 0.25, bits + 0.5])  # fmt: skip
    write_table(rows("one"), unit="bits_per_frame", coding="mulaw8")
    text = run()
    values = ["<=8.500", "<=13.000", "<=8.000", "ELBO", "12.750 - 13.500", "50.0 %"]
    assert line_of(text, "one")[1:7] == values
    assert line_of(text, "two")[1:7] == [*(f"{value} +-0.000" for value in values[:3]), "ELBO", "", "50.0 %"]


def test_only_what_occurs_is_explained(write_result, write_table, run):
    write_table(rows("a"))
    handwriting = run()
    assert "Nats are of the density of normalised values" in handwriting
    for word in ("bits", "bpf", "mu-law", "FLAC", "waveform", "`<=`", "`>=`", "ELBO", "`+-`", "Training and steps"):
        assert word not in handwriting
    write_result("a", 10.0, bound="elbo")
    trained = run()
    assert "`>=`: a lower bound on nats. Bounds are the one-sample ELBO" in trained and "FIVO" not in trained
    write_result("a", 11.0, folder="score_test_fivo4", bound="fivo-4")
    assert "FIVO-K that of a particle filter with K particles." in run()
    assert "Training and steps are those after which the model was best on the validation set." in trained
    write_table(rows("b"), unit="bits_per_frame", coding="mulaw")
    write_result("b", -10 * BITS, coding="mulaw")
    write_result("b", -11 * BITS, 2, coding="mulaw")
    speech = run("--only", "T")
    for word in ("bpf = bits per frame", "`>=`", "`+-`", "Nats are"):  # its overview still has the density
        assert word in speech
    assert "`<=`" not in speech and "mulaw8" not in speech and "FLAC" not in speech


def test_a_score_with_another_output_is_named_where_its_place_is_blank(write_result, write_table, run):
    write_result("a", 10.0)
    write_table(rows("a", distribution="gmm"))
    assert "Blank, though scored: `a` on `test` has the output gaussian, std >= 0.01." in run()
    write_table(rows("a", distribution="gmm") + rows("a", distribution="gaussian"))
    assert "Blank, though" not in run()


def test_scores_of_other_data_are_named(write_result, write_table, run):
    for name in ("a", "b", "c"):
        write_result(name, 10.0, data_hash="new" if name != "b" else "old")
    write_table(rows("a"))
    assert "\n\n`test` changed since these were scored: b; score them again.\n\n" in run()


def test_what_was_left_out_converted_and_tolerated_is_told_once(write_result, run):
    told = {"rejected": 2, "converted": {"wav 24-bit, 1 channel": 3}, "tolerated": {"recordings were clipped": 1}}
    for system, preparation in (("a", told), ("b", told), ("c", {}), ("d", {"rejected": 1})):
        write_result(system, -12.0 * BITS, coding="mulaw", preparation=preparation)
    paragraphs = [line for line in run().splitlines() if line.startswith("In preparing")]
    left_out, converted = (
        "unusable audio files were left out (rejected.tsv)",
        "3 were converted (wav 24-bit, 1 channel)",
    )
    assert paragraphs == [
        f"In preparing the corpus: {left_out}: 2; {converted}; recordings were clipped: 1.",
        f"In preparing the corpus: {left_out}: 1.",
    ]


def test_compressed_files_beside_their_bounds(write_file, run, records, tmp_path):
    write_file("lstm/seed1")
    latent = {"bound": "elbo", "system": "vrnn", "initial_bits": 600, "file_bytes": 338}
    write_file("vrnn/seed2", seed=2, **latent)
    write_file("adaptive", seed=None, system="adaptive", file_bytes=260)
    text = run()
    assert "## Files: what utterances take, losslessly compressed\n\nSome utterances in one file" in text
    assert line_of(text, "adaptive")[:4] == ["adaptive", "", "adaptive", "test"]
    assert line_of(text, "lstm") == [
        "lstm", "1", "lstm", "test", "2", "300", "6.667", "7.013", "5.00 %", "", "0.300", "8.000", "4", "2", "0.5",
    ]  # fmt: skip
    assert line_of(text, "vrnn")[6:11] == ["<=6.667", "9.013", "5.00 %", "2.000", "0.300"]
    assert [record["model"] for record in records("files")] == ["adaptive", "lstm", "vrnn"]
    assert (tmp_path / "exp/train/tables/files.tex").exists()


def test_a_damaged_file_is_named(write_file, run, tmp_path):
    write_file("a/seed1")
    damaged = write_file("b/seed1", verified=False)
    with pytest.raises(UserError, match=rf"result.json: verified: .*remove {damaged} and run stage 9 again"):
        run()
    text = (tmp_path / "RESULTS.md").read_text()
    assert line_of(text, "a") and f"Left out: {damaged}/result.json: " in text and "| b " not in text


def test_nothing_there_at_all(write_table, run, records, tmp_path):
    write_table([{"system": "x", "experiment": "a", "published": {"test": 5}, "mark": ">="}])
    assert line_of(run(), "-")[3:5] == [">=5", ""]
    assert not (tmp_path / "exp/train/figures").exists()
    assert [record["ours"] for record in records()] == [""]


def test_what_is_half_written_is_not_there_yet(write_result, write_table, run, tmp_path):
    (write_result("a", 10.0) / "done.json").unlink()
    (write_result("b", 10.0) / "result.json").unlink()
    (tmp_path / "exp/train/c/seed1").mkdir(parents=True)
    (tmp_path / "exp/train/c/seed1/history.jsonl").touch()
    write_table(rows("a", "b", "c"))
    text = run()
    assert [line.split("|")[4].strip() for line in text.splitlines() if line.startswith("| - ")] == [""] * 3
    assert "Left out" not in text and "All densities" not in text


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[:40], "not valid JSON"),
        (lambda text: "[]", "contents: "),
        (lambda text: text.replace('"frames"', '"fames"'), "frames: field required"),
        (lambda text: text.replace('"bound": "exact"', '"bound": "iwae-many"'), "bound: "),
        (lambda text: text.replace('"nats_per_frame": 0.2', '"nats_per_frame": NaN'), "nats_per_frame: "),
    ],
)
def test_a_damaged_result_is_named_and_all_else_is_written(write_result, write_table, run, tmp_path, damage, reason):
    write_result("good", 10.0)
    path = write_result("bad", 30.0) / "result.json"
    path.write_text(damage(path.read_text()))
    write_table(rows("good", "bad"))
    with pytest.raises(UserError) as error:
        run()
    message = str(error.value)
    assert message.startswith(f"{path}: {reason}") and "\n" not in message
    assert f"remove {path.parent} and score again; everything else is in {tmp_path / 'RESULTS.md'}" in message
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert f"Left out: {path}: {reason}" in text
    assert line_of(text, "good")[1] == "10"


def test_several_damaged_files_are_one_line(write_result, write_table, run, tmp_path):
    paths = [write_result(name, 1.0) / "result.json" for name in "ab"]
    for path in paths:
        path.write_text("")
    entry = {"step": 1, "seconds": 2, "bits_per_frame": None, "nats_per_frame": 1}
    histories = [path.parents[1] / "history.jsonl" for path in paths]
    histories[0].write_text(json.dumps(entry) + '\n{"st')
    histories[1].write_text(json.dumps({**entry, "nats_per_frame": None}))
    write_table(rows("a"))
    with pytest.raises(UserError, match=rf"^{paths[0]}: not valid JSON .* \(and 3 more; .*RESULTS.md lists all\)"):
        run()
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    for path in (*paths, *histories):
        assert f"Left out: {path}: not " in text


def test_what_is_damaged_elsewhere_is_named_too(write_result, write_table, run, tmp_path, monkeypatch):
    path = write_result("a", 1.0, root="other/exp/train") / "result.json"
    path.write_text("")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_table(rows("a", root="../other/exp/train"))
    with pytest.raises(UserError, match=r"^\.\./other/exp/train/a/seed1/score_test/result.json: not valid JSON"):
        run()


def test_torch_is_not_imported(write_result, write_table, tmp_path):
    write_result("a", 10.0)
    write_table(rows("a"))
    program = (
        "import sys\nfrom speechlvm.bin import report\nreport.main(sys.argv[1:])\nsys.exit('torch' in sys.modules)"
    )
    options = ["--exp", tmp_path / "exp/train", "--tables", tmp_path / "tables", "--out", tmp_path / "R.md"]
    assert subprocess.run([sys.executable, "-c", program, *options], stdout=subprocess.DEVNULL).returncode == 0
    assert (tmp_path / "exp/train/tables/T.csv").exists()


def test_nothing_is_written_again_unless_something_changed(write_result, write_table, run, tmp_path, capsys):
    write_result("a", -10.0 * BITS, coding="mulaw")
    write_table(rows("a", at=1.0))
    run()
    out = tmp_path / "RESULTS.md"
    figure = next((tmp_path / "exp/train/figures").glob("*.png"))
    arguments = ["--exp", str(tmp_path / "exp/train"), "--tables", str(tmp_path / "tables"), "--out", str(out)]
    figure.write_bytes(b"as it was")
    assert report.main([*arguments, "--check"]) == 0 and report.main(arguments) == 0
    assert f"{out}: complete" in capsys.readouterr().out and figure.read_bytes() == b"as it was"

    text = out.read_text()
    for change in (
        lambda: out.write_text("edited"),
        out.unlink,
        lambda: write_result("b", -9.0 * BITS, coding="mulaw"),
    ):
        change()
        assert report.main([*arguments, "--check"]) == 1
        assert report.main(arguments) == 0
        assert out.read_text().startswith(text[:20]) and figure.read_bytes() != b"as it was"
        assert report.main([*arguments, "--check"]) == 0


def test_experiments_on_another_disk(write_result, write_table, run, tmp_path):
    path = write_result("a", -1.0) / "result.json"
    write_table(rows("a", "b"))
    (tmp_path / "exp/train/a").rename(tmp_path / "a")
    (tmp_path / "exp/train/a").symlink_to(tmp_path / "a")
    before = run()
    path.write_text(path.read_text().replace("-1.0", "-2.0"))
    changed = run()
    assert changed != before
    (tmp_path / "exp/train/b").symlink_to(tmp_path / "a")
    assert run() != changed


def test_the_table_of_likelihoods_is_that_of_all_results(write_result, write_table, run, tmp_path, capsys):
    for name, bits in (("vrnn", 12.1), ("lstm", 11.9)):
        write_result(name, -bits * BITS, coding="mulaw", bound="elbo", steps=10, hours=1.0)
    write_table(rows("vrnn"), unit="bits_per_frame", coding="mulaw", sets=["test"])
    document = run()
    capsys.readouterr()
    likelihoods.main(["--exp", str(tmp_path / "exp/train")])
    printed = capsys.readouterr().out
    assert printed.startswith("## All results on `test`") and printed.strip() in document
    assert printed.index("| lstm ") < printed.index("| vrnn ")
