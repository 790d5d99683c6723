"""The program of stage 8 on phones whose features are known."""

import json
from pathlib import Path

import numpy as np
import pytest
from imitations.representations import write_store
from programs import call

from speechlvm.bin import probe
from speechlvm.data.kaldi.directory import DataDirectory, Interval, write_data_dir
from speechlvm.latents.probes.units import load_units
from speechlvm.latents.store import Representation

Z = [Representation("z1", "latent", 128, 64.0, 3), Representation("z2", "latent", 512, 256.0, 2)]
SHORT = ["--steps", "6", "--batch_steps", "100", "--hidden", "4", "--vocabulary", "12"]
SHORT += ["--minutes", "0.05", "all", "--seeds", "1", "2"]


def write_set(root, name, utterances):
    draws = np.random.default_rng(len(name))
    items = [f"{name}-{i}" for i in range(utterances)]
    values = [
        (u, {z.name: {"mean": draws.standard_normal((8192 // z.hop_frames, z.dimensions))} for z in Z}) for u in items
    ]
    write_store(root / f"latents_{name}", values, Z, source="m", set=name, rate_hz=16000)
    phones = [Interval(0, 3000, "h#"), Interval(3000, 6000, "aa"), Interval(6000, 8192, "s")]
    data = DataDirectory(
        utt2spk=dict.fromkeys(items, name),
        wav={u: root / f"{u}.wav" for u in items},
        num_samples=dict.fromkeys(items, 8192),
        phones=dict.fromkeys(items, phones),
        text=dict.fromkeys(items, "Oh, as a sea"),
    )
    write_data_dir(data, root / "data" / name)


@pytest.fixture
def corpus(tmp_path):
    for name, utterances in (("train", 12), ("valid", 2), ("test", 3)):
        write_set(tmp_path, name, utterances)
    return tmp_path


def run(root, *options, out="probes", train="train", short=SHORT):
    words = ["--train", root / f"latents_{train}", "--train_data", root / "data" / "train", "--out", root / out]
    for name in ("valid", "test"):
        words += [f"--{name}", root / f"latents_{name}", f"--{name}_data", root / "data" / name]
    return call(probe.main, *words, *short, *options)


def result_of(root, out="probes"):
    return json.loads((root / out / "result.json").read_text())


def test_results_and_figures(corpus):
    done = run(corpus)
    assert done.returncode == 0, done.stderr
    result = result_of(corpus)
    assert result["source"] == "m" and result["sets"] == {"train": "train", "valid": "valid", "test": "test"}
    runs = {(r["representation"], r["task"], r["size"], r["seed"]): r for r in result["runs"]}
    assert set(runs) == {
        (z, task, size, seed)
        for z in ("z1", "z2")
        for task in ("phones", "units", "frames")
        for size in ("0.05", "all")
        for seed in (1, 2)
    }
    metrics = {"phones": {"phone_error_rate"}, "units": {"unit_error_rate", "word_error_rate"}, "frames": {"accuracy"}}
    for (_, task, size, _), r in runs.items():
        assert metrics[task] <= set(r) and r["utterances"] == (12 if size == "all" else 6)
        assert r["minutes"] == pytest.approx(r["utterances"] * 8192 / 16000 / 60)
    assert len(result["summary"]) == 12 and all(row["seeds"] == 2 for row in result["summary"])
    assert result["tasks"]["frames"]["chance"] == {"accuracy": 12 / 32}  # middles of 256 in each phone: 12, 11, 9
    assert load_units((corpus / "probes" / "units.model").read_bytes()).get_piece_size() == 12
    for ending, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        assert (corpus / "probes" / f"error_rates{ending}").read_bytes().startswith(start)
    assert "phones: z1, 0.05 (0.1 min): phone error rate" in done.stdout
    assert "complete" in run(corpus).stdout


def test_jobs_change_nothing_and_finished_runs_are_kept(corpus, monkeypatch):
    from speechlvm.latents.probes import runs
    from speechlvm.reporting import probes

    monkeypatch.setattr(probes, "probes_figure", lambda *_: None)
    few = ["--tasks", "frames"]
    assert run(corpus, *few).returncode == 0
    sharded = [*few, "--nj", 2]
    assert run(corpus, *sharded, "--check", out="shared").returncode == 1
    train, trained = runs.train_probe, []

    def killed_at_the_third(*arguments):
        trained.append(arguments)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(runs, "train_probe", killed_at_the_third)
    assert run(corpus, *sharded, "--job", 2, out="shared").returncode == 75
    assert not (corpus / "shared" / "shard.2.json").exists()
    assert run(corpus, *sharded, "--job", 2, out="shared").returncode == 0
    assert len(trained) == 3 + 2  # of four, two had finished
    assert run(corpus, *sharded, "--merge", out="shared").returncode == 1
    assert run(corpus, *sharded, "--job", 1, out="shared").returncode == 0
    assert run(corpus, *sharded, "--merge", out="shared").returncode == 0
    assert result_of(corpus, "shared") == result_of(corpus)
    count = len(trained)
    assert run(corpus, *few, "--seeds", 1, 2, 3, out="shared").returncode == 0  # after --seeds "1 2": only the third
    assert len(trained) == count + 4 and not (corpus / "shared" / "shard.2.json").exists()
    with (corpus / "latents_test" / "done.json").open("a") as stream:
        stream.write("\n")
    assert run(corpus, *few, out="shared").returncode == 0  # other latents: all again
    assert len(trained) == count + 4 + 8


def test_tasks_without_labels(corpus):
    (corpus / "data" / "valid" / "phones").unlink()
    done = run(corpus)
    assert done.returncode == 1 and not (corpus / "probes").exists()
    assert done.stderr == (
        f"error: {corpus}/data/valid/phones: missing, and probe 'phones' needs it; leave it out of --tasks\n"
    )
    done = run(corpus, "--optional")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"probe 'phones' skipped: {corpus}/data/valid/phones is missing\nprobe 'frames' skipped"
    )
    assert {r["task"] for r in result_of(corpus)["runs"]} == {"units"}
    (corpus / "data" / "test" / "text").unlink()
    done = run(corpus, "--optional", out="nothing")
    assert done.returncode == 0 and done.stdout.count("\n") == 3 and not (corpus / "nothing").exists()
    assert run(corpus, "--optional", "--check", out="nothing").returncode == 1
    assert (corpus / "probes" / "result.json").exists()
    assert run(corpus, "--optional").returncode == 0
    assert not any((corpus / "probes" / name).exists() for name in ("result.json", "done.json"))


def test_results_of_spectra_are_drawn_in_the_same_figure(corpus, monkeypatch):
    from speechlvm.reporting import probes

    drawn = []
    monkeypatch.setattr(probes, "probes_figure", lambda stem, results: drawn.append([r["source"] for r in results]))
    few = ["--tasks", "frames", "--seeds", "1"]
    assert run(corpus, *few, "--spectra", corpus / "spectra").returncode == 0  # not there yet
    (corpus / "probes").rename(corpus / "spectra")
    assert run(corpus, *few, "--spectra", corpus / "spectra").returncode == 0
    done = run(corpus, *few, "--spectra", corpus / "spectra", "--steps", 7)
    assert "spectra: not drawn, since these probes were trained with other settings" in done.stdout
    assert drawn == [["m"], ["m", "m"], ["m"]]


def test_the_usual_vocabulary_is_lowered_to_what_the_text_supports(corpus):
    words = [word for word in SHORT if word not in ("--vocabulary", "12")]
    done = run(corpus, "--tasks", "units", "--seeds", "1", short=words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("units: 18 sentencepiece units, the number nearest to the default 100 that the tran")
    assert result_of(corpus)["settings"]["vocabulary"] == 18
    assert run(corpus, "--tasks", "units", "--seeds", "1", short=words).stdout.endswith("probes: complete\n")


def test_labels_that_suffice_for_no_task_end_no_run(corpus):
    for name in ("train", "valid", "test"):
        items = [line.split()[0] for line in (corpus / "data" / name / "text").read_text().splitlines()]
        (corpus / "data" / name / "text").write_text("".join(f"{item} {' '.join(99 * ['long'])}\n" for item in items))
    alone = run(corpus, "--tasks", "units", "--minutes", "all")
    assert alone.returncode == 1 and "no utterance of the train set has labels that fit into its" in alone.stderr
    done = run(corpus, "--tasks", "units", "--minutes", "all", "--optional")
    assert done.returncode == 0 and done.stdout.startswith("left out: probe 'units': no utterance of the train set has")
    assert result_of(corpus)["runs"] == [] and not list((corpus / "probes").glob("*.png"))
    done = run(corpus, "--tasks", "units", "frames", "--minutes", "all", "--optional")
    assert done.returncode == 0 and {each["task"] for each in result_of(corpus)["runs"]} == {"frames"}


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (
            ["--vocabulary", 500],
            2,
            '7 to 18 units; give run.sh one of these numbers, e.g. --probe_args "--vocabulary 18", or none',
        ),
        (["--minutes", "0", "all"], 2, "argument --minutes: '0': expected a number above 0"),
        (["--learning_rate", "nan"], 2, "argument --learning_rate: 'nan': expected a number above 0"),
    ],
)
def test_wrong_usage(corpus, options, status, message):
    done = run(corpus, *options)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1) and message in done.stderr


def test_stores_that_are_not_there(corpus):
    done = run(corpus, train="nowhere")
    assert done.returncode == 1 and "latents_nowhere: no complete representations; run stage 6 (latents)" in done.stderr
    assert not Path(corpus / "probes" / "done.json").exists()
