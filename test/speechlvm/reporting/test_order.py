"""The order of trained systems: paired differences, marks, and the published order."""

import math

import numpy as np
import pytest

BITS = 150 * math.log(2)  # nats that one bit per frame is in an utterance of 150 frames
NAMES = [f"u{place:02}" for place in range(40)]


@pytest.fixture
def scored(write_result):
    """scored(experiment, bits, **fields): a score of 40 utterances of 150 frames that take these bits per frame."""

    def write(experiment, bits, seed=1, **fields):
        directory = write_result(experiment, -float(np.mean(bits)) * BITS, seed, coding="mulaw", **fields)
        lines = [f"{name} {-value * BITS!r}\n" for name, value in zip(NAMES, map(float, bits), strict=True)]
        (directory / "utt2nats").write_text("".join(lines))
        (directory / "utt2num_frames").write_text("".join(f"{name} 150\n" for name in NAMES))
        return directory

    return write


def table_rows(**published):
    return [
        {"s": 64, "system": name.upper(), "experiment": name, "published": {"test": value}}
        for name, value in published.items()
    ]


def order_of(text):
    lines = text.split("### Order of Table T on `test`\n\n")[1].split("\n\n")
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[0].splitlines()[2:]], lines[1]


def test_small_differences_are_seen_where_utterances_differ_much(scored, write_result, write_table, run, records):
    generator = np.random.default_rng(0)
    hard = 12 + generator.standard_normal(40)
    noise = 0.02 * generator.standard_normal(40)
    scored(
        "a", hard, terms_nats_per_frame={"log_likelihood": -8.0, "kl_z1": math.log(2) / 2, "kl_z2": 0.0}, bound="elbo"
    )
    scored("b", hard + 0.1 + noise, seed=1)
    scored("b", hard + 0.1 - noise, seed=2)
    scored("c", hard + 0.101 + 5 * (noise - noise.mean()))
    write_result("a", -7.5 * BITS, coding="mulaw-pcm", folder="score_test_mulaw-pcm", bound="elbo")
    write_result("uniform", -16 * BITS, coding="mulaw", system="uniform")
    rows = [*table_rows(b=12.0, a=12.1, c=12.3), {"s": 1, "system": "U", "experiment": "uniform"}]
    write_table(rows, unit="bits_per_frame", coding="mulaw")
    (a, b, c), note = order_of(run())
    assert [row[:3] for row in (a, b, c)] == [["1", "64", "A"], ["2", "64", "B"], ["3", "64", "C"]]
    assert a[4] == f"<={hard.mean():.3f}" and a[6:10] == ["<=7.500", "0.500 + 0.000", "", ""]
    assert b[8:] == ["+0.100 *", "+0.100 - +0.100", "12.00", "1"]  # the noise of its seeds cancels
    assert c[8] == "+0.001" and c[9].startswith("-0.0") and c[10:] == ["12.30", "3"]
    low, high = map(float, b[5].split(" - "))
    assert high - low > 0.3  # utterances differ far more than the systems
    assert "2 of 3 pairs" in note and note.endswith("the other way round: B s=64 before A s=64.")
    pairs = {(pair["better"], pair["worse"]): pair for pair in records("T_order_test")}
    assert [*pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair["excludes_zero"] for pair in pairs.values()] == ["True", "True", "False"]
    # 40 paired differences: 1.96 standard errors on either side, within the error of 1000 draws
    differences = 0.101 + 5 * (noise - noise.mean())
    error = 1.96 * differences.std() / math.sqrt(40)
    found = [float(pairs["a", "c"][name]) for name in ("difference", "low", "high")]
    assert found == pytest.approx([0.101, 0.101 - error, 0.101 + error], abs=0.2 * error)


def test_systems_scored_on_other_utterances_are_not_paired(scored, write_result, write_table, run):
    scored("a", np.full(40, 12.0))
    write_result("b", -12 * BITS, coding="mulaw")
    write_table(table_rows(a=1, b=2), unit="bits_per_frame", coding="mulaw")
    assert "Order of Table" not in run()
