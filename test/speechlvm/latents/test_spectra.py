"""Spectra against torchaudio called directly, their clock, and the program that stores them."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torchaudio
from scipy.fft import dct

from speechlvm.bin import spectra as program
from speechlvm.data.dumps import open_dump, vectors
from speechlvm.latents.spectra import COEFFICIENTS, REPRESENTATIONS, of_dump, spectra
from speechlvm.latents.store import Store
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.files import mark_done


def theirs(rate_hz):
    return {"sample_rate": rate_hz, "n_fft": 256, "hop_length": 64, "n_mels": 80, "pad_mode": "constant"}


def test_mel_is_torchaudios_and_logmel_its_logarithm(speech_like):
    samples = speech_like(5000, 3)
    values = spectra(8000)(samples)
    wave = torch.from_numpy(samples / 32768.0).float()
    power = torchaudio.transforms.MelSpectrogram(**theirs(8000))(wave).T.numpy()
    assert power.shape == (5000 // 64 + 1, 80)
    np.testing.assert_array_equal(values["mel"]["mean"], power)
    np.testing.assert_allclose(values["logmel"]["mean"], np.log(power), rtol=1e-6)


def test_mfcc_is_torchaudios(speech_like):
    samples = 4 * speech_like(5000, 3)
    settings = {name: value for name, value in theirs(8000).items() if name != "sample_rate"}
    transform = torchaudio.transforms.MFCC(8000, COEFFICIENTS, log_mels=True, melkwargs=settings)
    expected = transform(torch.from_numpy(samples / 32768.0).float()).T.numpy()
    found = spectra(8000)(samples)
    # they add 1e-6 to each power before the logarithm, little beside these
    np.testing.assert_allclose(found["mfcc"]["mean"], expected, atol=0.02)
    np.testing.assert_allclose(
        found["mfcc"]["mean"], dct(found["logmel"]["mean"], norm="ortho")[:, :COEFFICIENTS], atol=1e-4
    )


@pytest.mark.parametrize("frames", [1, 127, 128, 129, 320, 1000])
def test_long_utterances_come_in_parts_with_the_same_numbers(make_dump, monkeypatch, frames):
    dump = open_dump(make_dump("test", [frames, 50]))
    monkeypatch.setattr("speechlvm.latents.spectra.PART_FRAMES", 128)
    parts = list(of_dump(dump, ["u00", "u01"]))
    assert [utterance for utterance, _ in parts] == ["u00"] * -(-frames // 128) + ["u01"]
    whole = spectra(16000)(dump.read("u00"))
    for name, of in whole.items():
        joined = np.concatenate([values[name]["mean"] for utterance, values in parts if utterance == "u00"])
        np.testing.assert_allclose(joined, of["mean"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frame", [0, 40, 1000, 2015, 2017, 4000])
def test_an_impulse_is_loudest_at_the_step_of_its_frame(frame):
    samples = np.zeros(4001, dtype=np.int16)
    samples[frame] = 20_000
    values = spectra(16_000)(samples)
    assert values["mel"]["mean"].sum(1).argmax() == round(frame / 64)
    logmel = REPRESENTATIONS[0]
    assert logmel.steps_within(frame, frame + 1, len(values["mel"]["mean"])) == slice(
        round(frame / 64), round(frame / 64) + 1
    )


@pytest.mark.parametrize("frames", [1, 63, 64, 128, 129])
def test_utterances_shorter_than_the_window_have_spectra(frames):
    values = spectra(16_000)(np.full(frames, 1000, dtype=np.int16))
    for representation in REPRESENTATIONS:
        array = values[representation.name]["mean"]
        assert array.shape == (frames // 64 + 1, representation.dimensions) and array.dtype == np.float32
        assert np.isfinite(array).all()


def run(*arguments):
    return program.main([str(argument) for argument in arguments])


def test_stores_do_not_depend_on_the_number_of_jobs(make_dump, tmp_path, capsys):
    dump = make_dump("test", [700, 100, 900, 1, 3000], jobs=2)
    assert run("--dump", dump, "--out", tmp_path / "one") == 0
    three = ("--dump", dump, "--out", tmp_path / "three", "--nj", 3)
    assert run(*three, "--check") == 1
    for step in (["--job", 3], ["--job", 1], ["--job", 2], ["--merge"]):
        assert run(*three, *step) == 0
    one, other = Store(tmp_path / "one"), Store(tmp_path / "three")
    assert one.info == other.info and one.utterances == other.utterances == sorted(open_dump(dump).records)
    assert (one.source, one.rate_hz, one.info["set"], one.step_rate_hz("mfcc")) == ("spectra", 16_000, "test", 250)
    for name in one.representations:
        for utterance in one.utterances:
            np.testing.assert_array_equal(one.read(name, utterance), other.read(name, utterance))
    expected = spectra(16_000)(open_dump(dump).read("u00"))
    np.testing.assert_array_equal(one.read("mfcc", "u00"), expected["mfcc"]["mean"])

    capsys.readouterr()
    before = (tmp_path / "three/mel_mean.1.ark").stat().st_mtime_ns
    assert run(*three, "--check") == 0 and run(*three) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'three'}: complete\n"
    assert (tmp_path / "three/mel_mean.1.ark").stat().st_mtime_ns == before


def test_what_is_complete_is_known_without_torch(make_dump, tmp_path):
    dump = make_dump("test", [700])
    run("--dump", dump, "--out", tmp_path / "out")
    code = "import sys; from speechlvm.bin.spectra import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, "--dump", dump, "--out", tmp_path / "out"], check=True)


def test_another_dump_is_done_again(make_dump, tmp_path):
    run("--dump", make_dump("test", [700, 800]), "--out", tmp_path / "out")
    dump = make_dump("test", [700, 640], seed=5)
    assert run("--dump", dump, "--out", tmp_path / "out", "--check") == 1
    assert run("--dump", dump, "--out", tmp_path / "out") == 0
    assert len(Store(tmp_path / "out").read("logmel", "u01")) == 11


def test_what_spectra_cannot_be_made_of_is_said(make_dump, tmp_path):
    with pytest.raises(UserError, match=r"nothing: not a complete dump; run stage 2"):
        run("--dump", tmp_path / "nothing", "--out", tmp_path / "out")
    with pytest.raises(ConfigError, match="1 <= job <= nj"):
        run("--dump", make_dump("test", [700]), "--out", tmp_path / "out", "--nj", 2, "--job", 3)
    pen = tmp_path / "dump/pen"
    vectors.write(pen, 1, [("a", np.ones((4, 1), dtype=np.float32))], {"x": "real"}, {})
    vectors.merge(pen, 1, "data", {"x": "real"}, None)
    mark_done(pen, {})
    with pytest.raises(UserError, match=r"pen: holds vectors; spectra are made of audio only"):
        run("--dump", pen, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
