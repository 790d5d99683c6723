"""Stage 6 on tiny trained models of audio and of vectors."""

import json
import shutil

import numpy as np
import pytest

from speechlvm.bin import latents, spectra, train
from speechlvm.data.dumps import open_dump
from speechlvm.data.dumps.dump import random_utterances
from speechlvm.latents.store import Store
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.files import hash_file

VRNN = (
    "model: lstm\nmodel_conf: {stack: 16, hidden: 12, layers: 1}",
    "model: vrnn\nmodel_conf: {stack: 16, latent: 3, hidden: 12, state: 12, mlp_layers: 2}",
)
WAVENET = (VRNN[0], "model: wavenet\nmodel_conf: {stack: 16, channels: 4, layers_per_block: 2, blocks: 2}")


def run(*arguments):
    return latents.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Experiments that a test has trained, by their configuration."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def trained(make_dump, tiny_config, tmp_path, kept):
    """trained(*replacements) -> (experiment, test dump); each test has a copy of one training."""

    def make(*replacements):
        config = tiny_config(*replacements, ("steps: 12", "steps: 2"))
        known, out = kept / hash_file(config), tmp_path / "exp" / "train" / "tiny" / "seed1"
        if not known.exists():
            paths = make_dump("train", [3000, 2500, 2000]), make_dump("valid", [1200], seed=50)
            arguments = ["--config", config, "--train", paths[0], "--valid", paths[1], "--out", out]
            train.main([str(argument) for argument in arguments])
            shutil.copytree(out, known)
        shutil.copytree(known, out, dirs_exist_ok=True)
        return out, make_dump("test", [900, 1700, 333, 1], seed=90)

    return make


def test_more_numbers_than_can_be_drawn_are_fewer_samples(trained, tmp_path, capsys, monkeypatch):
    exp, test = trained(VRNN)
    steps = sum(-(-frames // 16) for frames in (900, 1700, 333, 1))
    monkeypatch.setattr("speechlvm.latents.extract.MOST_DRAWN", 2 * 3 * steps)
    run("--exp", exp, "--dump", test, "--out", tmp_path / "few", "--latent_samples", 5)
    assert "few: 2 samples of the latents instead of 5, which need more than" in capsys.readouterr().out
    run("--exp", exp, "--dump", test, "--out", tmp_path / "two", "--latent_samples", 2)
    assert "instead" not in capsys.readouterr().out
    few, two = Store(tmp_path / "few"), Store(tmp_path / "two")
    assert few.info["num_samples"] == two.info["num_samples"] == 2
    np.testing.assert_array_equal(few.read("z1", "u01"), two.read("z1", "u01"))


def test_latents_of_a_set(trained, tmp_path, capsys):
    exp, test = trained(VRNN)
    assert run("--exp", exp, "--dump", test, "--out", tmp_path / "one", "--latent_samples", 3) == 0
    one = Store(tmp_path / "one")
    assert (one.source, one.info["set"], one.rate_hz, one.utterances) == (
        "tiny",
        "test",
        16000,
        ["u00", "u01", "u02", "u03"],
    )
    (z1,) = one.representations.values()
    # 16 frames a step are kept as 64, the finest clock
    assert (z1.name, z1.kind, z1.hop_frames, z1.first_centre_frames, z1.dimensions) == ("z1", "latent", 64, 32.0, 3)
    assert [len(one.read("z1", u)) for u in one.utterances] == [15, 27, 6, 1]
    assert (one.read("z1", "u00", "std") > 0).all() and (one.read("z1", "u00", "kl") >= 0).all()

    shared = ["--exp", exp, "--dump", test, "--out", tmp_path / "two", "--latent_samples", 3, "--nj", 2]
    assert run(*shared, "--check") == 1
    run(*shared, "--job", 2)
    with pytest.raises(UserError, match="job 1 of 2 has not been done"):
        run(*shared, "--merge")
    run(*shared, "--job", 1)
    run(*shared, "--merge")
    assert run(*shared, "--check") == 0
    two = Store(tmp_path / "two")
    for utterance in one.utterances:
        for statistic in ("mean", "std", "kl"):
            np.testing.assert_allclose(
                two.read("z1", utterance, statistic), one.read("z1", utterance, statistic), rtol=1e-4, atol=1e-5
            )
    capsys.readouterr()
    run(*shared)
    assert capsys.readouterr().out == f"{tmp_path / 'two'}: complete\n"
    run("--exp", exp, "--dump", test, "--out", tmp_path / "two", "--latent_samples", 4)  # other settings: anew
    assert json.loads((tmp_path / "two" / "info.json").read_text())["num_samples"] == 4


def test_a_random_part_is_the_same_for_every_program(trained, tmp_path):
    exp, test = trained(VRNN)
    minutes = 1000 / 16000 / 60
    run("--exp", exp, "--dump", test, "--out", tmp_path / "l", "--latent_samples", 1, "--minutes", minutes)
    spectra.main(["--dump", str(test), "--out", str(tmp_path / "s"), "--minutes", str(minutes), "--nj", "2"])
    chosen = Store(tmp_path / "l").utterances
    frames = open_dump(test).records
    assert 0 < len(chosen) < 4 and sum(frames[u].frames for u in chosen) >= 1000
    assert Store(tmp_path / "s").utterances == chosen == random_utterances(open_dump(test), minutes)
    assert len(random_utterances(open_dump(test), 99.0)) == 4
    with pytest.raises(SystemExit):
        run("--exp", exp, "--dump", test, "--out", tmp_path / "x", "--minutes", 0)


def test_a_store_says_whether_recordings_were_cut(trained, tmp_path):
    exp, test = trained()
    (test / "done.json").write_text('{"segment_frames": 8000}')
    run("--exp", exp, "--dump", test, "--out", tmp_path / "l")
    spectra.main(["--dump", str(test), "--out", str(tmp_path / "s")])
    for name in ("l", "s"):
        info = Store(tmp_path / name).info
        assert (info["segment_frames"], info["set"], info["rate_hz"]) == (8000, "test", 16000)


def test_a_store_with_more_statistics_is_not_made_again(trained, tmp_path):
    exp, test = trained(VRNN)
    shared = ["--exp", exp, "--dump", test, "--out", tmp_path / "m", "--latent_samples", 1]
    run(*shared, "--statistics", "mean")
    assert Store(tmp_path / "m").representations["z1"].statistics == ("mean",)
    assert not list((tmp_path / "m").glob("z1_kl*"))
    assert run(*shared, "--check") == 1
    run(*shared)
    assert run(*shared, "--statistics", "mean", "--check") == 0
    assert run(*shared, "--statistics", "kl", "--check") == 0
    run(*shared, "--statistics", "mean")
    assert Store(tmp_path / "m").representations["z1"].statistics == ("mean", "std", "kl")
    assert run(*shared, "--statistics", "mean", "--seed", 1, "--check") == 1
    (tmp_path / "m" / "done.json").write_text('["mean"]')
    assert run(*shared, "--statistics", "mean", "--check") == 1


@pytest.mark.parametrize(
    ("system", "names", "chosen"), [((), [], ["h"]), ((WAVENET,), ["--names", "skip1"], ["skip1"])]
)
def test_hidden_states_of_models_without_latents(trained, tmp_path, system, names, chosen):
    exp, test = trained(*system)
    run("--exp", exp, "--dump", test, "--out", tmp_path / "h", *names)
    store = Store(tmp_path / "h")
    assert list(store.representations) == chosen
    assert store.representations[chosen[0]].kind == "hidden"
    assert [len(store.read(chosen[0], u)) for u in store.utterances] == [15, 27, 6, 1]


def test_what_cannot_be_done_is_said(trained, tmp_path):
    exp, test = trained()
    with pytest.raises(ConfigError, match="'z1': the model has no such representation; expected: h"):
        run("--exp", exp, "--dump", test, "--out", tmp_path / "x", "--names", "z1")
    with pytest.raises(SystemExit) as wrong:
        run("--exp", exp, "--dump", test, "--out", tmp_path / "x", "--latent_samples", 0)
    assert wrong.value.code == 2
    with pytest.raises(UserError, match="no trained model; run stage 3"):
        run("--exp", tmp_path, "--dump", test, "--out", tmp_path / "x")
    (test / "done.json").unlink()
    with pytest.raises(UserError, match="not a complete dump; run stage 2"):
        run("--exp", exp, "--dump", test, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()
