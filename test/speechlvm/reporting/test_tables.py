"""Tables and sweeps from results on disk: what lands where, and what is computed."""

import json
import math
from pathlib import Path

import pytest
import torch

from speechlvm.bin import report
from speechlvm.distributions.gaussian import Gaussian, GaussianMixture
from speechlvm.reporting.collect import collect
from speechlvm.reporting.compare import compare, sweep
from speechlvm.reporting.document import bits_overview
from speechlvm.reporting.published import published_grid
from speechlvm.reporting.tables import Row, choose, load_tables
from speechlvm.utils.errors import ConfigError

TIMIT_TABLES = Path(__file__).resolve().parents[3] / "egs/timit/conf/tables"
# Source A, Table 5, as printed, by minimal standard deviation.
PRINTED = {1: -45367, 0.5: -11146, 0.1: 68307, 0.05: 102525, 0.01: 181979, 0.005: 216198, 0.001: 295651}


@pytest.fixture
def table(write_table):
    """table(rows, **fields): a table as it is loaded."""
    return lambda *arguments, **fields: load_tables(write_table(*arguments, **fields))[0]


def lines_of(text):
    """Cells by header, one dictionary per row."""
    header, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines()]
    return [dict(zip(header, row, strict=False)) for row in rows]


def shown(tmp_path, chosen):
    return lines_of(published_grid(compare(chosen, scores_in(tmp_path), "train")).markdown())


def scores_in(tmp_path):
    errors = []
    scores = collect(tmp_path / "exp" / "train", errors)
    assert errors == []
    return scores


def test_marks_outputs_and_blanks_of_densities(tmp_path, write_result, table):
    write_result("bound", 812.4, bound="elbo", distribution={"name": "gmm", "minimum_std": 0.0, "components": 20})
    write_result("exact", -90.0)
    rows = [
        {"s": 200, "system": "VRNN", "experiment": "bound", "published": {"test": 800}, "mark": "~"},
        {"s": 1, "system": "WaveNet", "experiment": "exact", "published": {"test": -100}},
        {"s": 1, "system": "SRNN", "experiment": "later", "published": {"test": 900}, "mark": ">="},
    ]
    bound, exact, later = shown(tmp_path, table(rows))
    assert (bound["test: published"], bound["ours"], bound["difference"]) == ("~800", ">=812", "+12")
    assert bound["output"] == "gmm(20), no floor"
    assert (exact["test: published"], exact["ours"], exact["difference"]) == ("-100", "-90", "+10")
    assert (exact["output"], exact["training"], exact["steps"]) == ("gaussian, std >= 0.01", "2.0 h", "7")
    assert later["test: published"] == ">=900" and later["experiment"] == "later"
    assert [later[key] for key in ("ours", "difference", "output", "training", "steps", "seeds")] == [""] * 6


def test_results_of_another_unit_coding_or_output_stay_out(tmp_path, write_result, table):
    write_result("mulaw", -1500.0, coding="mulaw")
    write_result("normalised", 75.0)
    write_result("flac", -900.0, coding="linear", bound="code-length")
    write_result("adaptive", -800.0, coding="linear", system="adaptive")
    names = ("mulaw", "normalised", "flac", "adaptive")
    rows = [{"s": 1, "system": "any", "experiment": name} for name in names]
    nats = {row["experiment"]: row["test: ours"] for row in shown(tmp_path, table(rows))}
    assert nats == {"mulaw": "", "normalised": "75", "flac": "", "adaptive": ""}
    chosen = table(rows, unit="bits_per_frame", coding="mulaw")
    bits = {row["experiment"]: row["test: ours"] for row in shown(tmp_path, chosen)}
    references = {"flac": "8.656", "adaptive": "7.694"}  # have no coding of their own
    assert bits == {"mulaw": "14.427", "normalised": "", **references}
    chosen = table(rows, unit="bits_per_frame", coding="mulaw8")
    assert [row["test: ours"] for row in shown(tmp_path, chosen)] == ["", "", "8.656", "7.694"]
    rows = [{"system": "any", "experiment": "normalised", "distribution": name} for name in ("gaussian", "gmm")]
    assert [row["test: ours"] for row in shown(tmp_path, table(rows))] == ["75", ""]


def test_published_tables_have_the_elbo_and_other_bounds_rows_of_their_own(tmp_path, write_result, table):
    for seed, bits in ((1, 10.0), (2, 12.0)):
        write_result("a", -bits * 150 * math.log(2), seed, bound="elbo", coding="mulaw")
        for bound, gain in (("iwae-5", 1), ("fivo-16", 2)):
            write_result("a", (gain - bits) * 150 * math.log(2), seed, f"score_{bound}", bound=bound, coding="mulaw")
    write_result("only", -8 * 150 * math.log(2), bound="fivo-4", coding="mulaw")
    rows = [{"system": "VRNN", "experiment": name} for name in ("a", "only")]
    row, blank = shown(tmp_path, table(rows, unit="bits_per_frame", coding="mulaw"))
    assert (row["test: ours"], row["seeds"], row["bound"]) == ("<=11.000 +-1.414", "2", "ELBO")
    assert (blank["test: ours"], blank["bound"]) == ("", "")
    lines = lines_of(bits_overview(scores_in(tmp_path)))
    assert [(line["experiment"], line["bound"], line["mulaw [bpf]"]) for line in lines] == [
        ("only", "FIVO-4", "<=8.000"),
        ("a", "FIVO-16", "<=9.000 +-1.414"),
        ("a", "IWAE-5", "<=10.000 +-1.414"),
        ("a", "ELBO", "<=11.000 +-1.414"),
    ]


def test_exact_results_count_once_for_each_seed(tmp_path, write_result):
    for seed, nats in ((1, 10.0), (2, 30.0)):
        for folder in ("score_test", "score_test_fivo64"):
            write_result("a", nats, seed, folder=folder)
    [score] = scores_in(tmp_path)
    assert [result.nats_per_utterance for result in score.results] == [10.0, 30.0]
    assert score.std("nats_per_utterance") == pytest.approx(20 / math.sqrt(2))


def test_published_figures_have_the_digits_of_the_papers(tmp_path, table):
    published = {"a": 10.88, "b": 8.582, "c": 13.3, "d": 16}
    rows = [{"system": "x", "experiment": name, "published": {"test": bits}} for name, bits in published.items()]
    lines = shown(tmp_path, table(rows, unit="bits_per_frame", coding="mulaw"))
    assert [line["test: published"] for line in lines] == ["10.88", "8.582", "13.30", "16.00"]
    rows = [{"system": "x", "experiment": "flac", "published": {"test": 9.39, "dev": 9.292}}]
    [line] = shown(tmp_path, table(rows, unit="bits_per_frame", coding="mulaw", sets=["test", "dev"]))
    assert [line["test: published"], line["dev: published"]] == ["9.390", "9.292"]


def test_rows_of_another_recipe_come_from_there(tmp_path, write_result, monkeypatch, table):
    other = "../light/exp/train_10h"
    write_result("a", 20.0, root="here/exp/train")
    write_result("a", 10.0, root="light/exp/train_10h")
    write_result("b", 30.0, root="light/exp/train_10h")
    rows = [{"system": "x", "experiment": name, "root": root} for name in "ab" for root in ("", other)]
    table([*rows, {"system": "x", "experiment": "a", "root": "exp/later"}])
    monkeypatch.chdir(tmp_path / "here")
    report.main(["--exp", "exp/train", "--tables", str(tmp_path / "tables"), "--out", "R.md"])
    text = Path("R.md").read_text(encoding="utf-8")
    lines = lines_of(text[text.index("| s ") :].split("\n\n")[0])
    assert [(line["experiment"], line["trained on"], line["test: ours"]) for line in lines] == [
        ("a", "train", "20"), ("a", "train_10h", "10"), ("b", "train", ""), ("b", "train_10h", "30"),
        ("a", "later", ""),
    ]  # fmt: skip
    assert "| a " in text.split("## All densities")[1] and "| b " not in text.split("## All densities")[1]


def test_a_table_of_one_training_set_takes_no_other(tmp_path, write_result, table):
    write_result("a", 20.0)
    rows = [{"system": "x", "experiment": "a"}, {"system": "x", "experiment": "a", "root": "exp/later"}]
    for name, ours in (("train", "20"), ("train_1h", "")):
        line, _ = shown(tmp_path, table(rows, train_set=name))
        assert (line["trained on"], line["test: ours"]) == (name, ours)


def test_eight_bit_codes_are_not_the_best_of_all(tmp_path, write_result):
    codings = {"worse": "mulaw", "pcm": "linear", "softmax": "mulaw8", "better": "mulaw"}
    for (name, coding), nats in zip(codings.items(), (-1500.0, -900.0, -300.0, -1400.0), strict=True):
        write_result(name, nats, coding=coding)
    lines = lines_of(bits_overview(scores_in(tmp_path)))
    assert [line["experiment"] for line in lines] == ["pcm", "better", "worse", "softmax"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "bits_per_frame"}, "unit bits_per_frame, coding normalised"),
        ({"coding": "mulaw"}, "unit nats_per_utterance, coding mulaw"),
        ({"coding": "alaw"}, "coding 'alaw' is unknown; expected one of mulaw"),
        ({"axis": "layers"}, "a: lacks `at`, its place on the axis 'layers'"),
        ({"frames_per_utterance": {"paper": 1}}, "frames_per_utterance of paper; sets are test"),
        ({"rows": [{"system": "x", "experiment": "a", "published": {"dev": 1}}]}, "a: published on dev; sets are test"),
        *[
            ({"rows": [{"system": "x", "experiment": "a", "root": root}]}, f"root '{root}' with experiment 'a'")
            for root in ("/exp/train", "exp/../train", "a b")
        ],
        ({"rows": [{"system": "x", "minimum_std": 0.5, "root": "exp/b"}]}, "root 'exp/b' with experiment ''"),
        ({"rows": [{"system": "x"}]}, "give one of experiment, external and minimum_std"),
        (
            {"rows": [{"system": "x", "experiment": "a", "minimum_std": 1}]},
            "give one of experiment, external and minimum_std",
        ),
        (
            {"unit": "bits_per_frame", "coding": "mulaw", "rows": [{"system": "x", "minimum_std": 0.5}]},
            "minimum_std 0.5: a floor bounds densities",
        ),
    ],
)
def test_contradictions_are_refused(change, message, table):
    with pytest.raises(ConfigError, match=message):
        table(**{"rows": [{"system": "x", "experiment": "a"}], **change})


def test_a_sweep_is_a_table_and_a_figure_of_what_exists(tmp_path, write_result, table, run):
    rows = [{"system": "x", "experiment": f"s{at}", "at": at} for at in (3, 1, 2)]
    chosen = table(rows, axis="layers")
    folder = tmp_path / "exp" / "train" / "figures"
    run()
    assert sweep(compare(chosen, [], "train")) == {} and not folder.exists()
    write_result("s3", 30.0, bound="elbo")
    write_result("s1", 10.0, bound="elbo")
    write_result("s2", -99.0, coding="mulaw")  # not of this table
    run()
    assert (folder / "T.png").read_bytes().startswith(b"\x89PNG")
    pdf = (folder / "T.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"CreationDate" not in pdf  # so that the same figure gives the same bytes
    [(name, places)] = sweep(compare(chosen, scores_in(tmp_path), "train")).items()
    assert name == "test"
    assert [(at, score.mean("nats_per_utterance")) for at, score in places] == [(1, 10.0), (3, 30.0)]


def test_notes_are_printed_and_learning_curves_are_kept_apart(tmp_path, write_result, table, run):
    write_result("a", 10.0)
    table([{"system": "x", "experiment": "a"}], note="mind the gap")
    for name, bits in (("a", None), ("b", 3.0)):
        path = tmp_path / "exp" / "train" / name / "seed1" / "history.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        entry = {"step": 1, "seconds": 60, "bits_per_frame": bits, "nats_per_frame": 1.0}
        path.write_text(json.dumps({**entry, "terms_nats_per_frame": {"log_likelihood": -1.0, "kl_z1": 0.1}}) + "\n")
    assert "\n\nmind the gap\n" in run()
    assert sorted(path.name for path in (tmp_path / "exp" / "train" / "figures").iterdir()) == [
        "kl_curves.pdf", "kl_curves.png",
        "learning_curves.pdf", "learning_curves.png",
        "learning_curves_densities.pdf", "learning_curves_densities.png",
    ]  # fmt: skip


def test_a_table_has_the_name_of_its_file(write_table):
    directory = write_table([{"system": "x", "experiment": "a"}])
    (directory / "T.yaml").rename(directory / "U.yaml")
    with pytest.raises(ConfigError, match="U.yaml: table 'T'; expected 'U', as the file is named"):
        load_tables(directory)


# --- Source A, Table 5 ------------------------------------------------------------------------------------------------


def test_table_5_is_that_of_the_paper(tmp_path):
    [chosen] = choose(load_tables(TIMIT_TABLES), ["A5"])
    assert {row.minimum_std: row.published["paper"] for row in chosen.rows} == PRINTED
    rows = lines_of(published_grid(compare(chosen, [], "train")).markdown())
    label = "paper (49367.3 frames per utterance): published"
    assert [int(row[label]) for row in rows] == list(PRINTED.values())
    ours = [float(row["ours"]) for row in rows]
    assert ours == [-45365.5, -11146.7, 68306.9, 102525.7, 181979.3, 216198.1, 295651.7]
    differences = [float(row["difference"]) for row in rows]
    assert differences == [1.5, -0.7, -0.1, 0.7, 0.3, 0.1, 0.7] and max(map(abs, differences)) <= 2
    assert {row["test: ours"] for row in rows} == {""}  # no length is known yet


def test_table_5_of_our_own_data_takes_their_length(tmp_path, write_result):
    write_result("a", -500.0, coding="mulaw")  # any result on the set tells its length
    [chosen] = choose(load_tables(TIMIT_TABLES), ["A5"])
    rows = shown(tmp_path, chosen)
    assert [row["test (150.0 frames per utterance): ours"] for row in rows] == [
        f"{150 * (-0.5 * math.log(2 * math.pi * std**2)):.1f}" for std in PRINTED
    ]


@pytest.mark.parametrize("minimum_std", [1.0, 0.01, 0.001])
def test_no_gaussian_and_no_mixture_exceeds_the_largest_density(minimum_std):
    target = torch.linspace(-3, 3, 31, dtype=torch.float64)[:, None]
    largest = Row(system="x", minimum_std=minimum_std).largest_log_density
    for distribution, parts in ((Gaussian(1, minimum_std), 1), (GaussianMixture(2, 1, minimum_std), 2)):
        logits = torch.zeros(31, parts if parts > 1 else 0, dtype=torch.float64)
        for raw in (-50.0, -18.0, -5.0, 0.0):
            spread = torch.full((31, parts), raw, dtype=torch.float64)
            parameters = torch.cat([logits, target.expand(-1, parts), spread], -1)
            assert (distribution.log_prob(parameters, target) <= largest + 1e-9).all()
        spread = torch.full((31, parts), -18.0, dtype=torch.float64)
        parameters = torch.cat([logits, target.expand(-1, parts), spread], -1)
        torch.testing.assert_close(
            distribution.log_prob(parameters, target),
            torch.full((31,), largest, dtype=torch.float64),
            atol=1e-6,
            rtol=0,
        )
