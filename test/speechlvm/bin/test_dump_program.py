"""Stage 2 from a data directory of wav files."""

import kaldiio
import numpy as np
import pytest

from speechlvm.bin import dump as program
from speechlvm.coding import build_coding
from speechlvm.data.audio import write_wav
from speechlvm.data.dumps import open_dump
from speechlvm.data.dumps.features import MEL_BINS, MEL_HOP_FRAMES
from speechlvm.data.kaldi.directory import DataDirectory, load_data_dir, write_data_dir
from speechlvm.data.kaldi.validate import validate
from speechlvm.utils.errors import ConfigError, UserError


@pytest.fixture
def data(tmp_path, speech_like):
    utterances = {f"spk_u{i}": speech_like(1500 + 100 * i, i) for i in range(3)}
    for name, samples in utterances.items():
        write_wav(tmp_path / f"{name}.wav", samples, 16000)
    directory = DataDirectory(
        utt2spk=dict.fromkeys(utterances, "spk"),
        wav={name: tmp_path / f"{name}.wav" for name in utterances},
        num_samples={name: len(samples) for name, samples in utterances.items()},
    )
    write_data_dir(directory, tmp_path / "data")
    return tmp_path / "data", utterances


def run(data, out, kind, *extra):
    return program.main([str(a) for a in ("--data", data, "--out", out, "--kind", kind, *extra)])


def test_pcm_in_jobs(data, tmp_path, capsys):
    directory, utterances = data
    out = tmp_path / "pcm16"
    assert run(directory, out, "pcm16", "--nj", 2, "--check") == 1
    for step in (["--job", 1], ["--job", 2], ["--merge"]):
        assert run(directory, out, "pcm16", "--nj", 2, *step) == 0
    dump = open_dump(out)
    for name, samples in utterances.items():
        np.testing.assert_array_equal(dump.read(name), samples)
    assert run(directory, out, "pcm16", "--check") == 0
    run(directory, out, "pcm16")
    assert capsys.readouterr().out.endswith(f"{out}: complete\n")


def test_a_folder_of_audio_is_a_set(data, tmp_path, speech_like):
    directory, utterances = data
    folder = tmp_path / "mine"
    for name, samples in utterances.items():
        (folder / "a b").mkdir(parents=True, exist_ok=True)
        write_wav(folder / "a b" / f"{name}.WAV", samples, 16000)
    (folder / "notes.txt").write_text("no audio")
    assert run(folder, tmp_path / "pcm16", "pcm16") == 0
    run(directory, tmp_path / "other", "pcm16")
    found, other = open_dump(tmp_path / "pcm16"), open_dump(tmp_path / "other")
    assert list(found.records) == [f"a_b-{name}" for name in other.records]
    for name in other.records:
        np.testing.assert_array_equal(found.read(f"a_b-{name}"), other.read(name))
    write_wav(folder / "a_b-spk_u0.wav", speech_like(10, 1), 16000)
    with pytest.raises(UserError, match=r"has the id of .*, a_b-spk_u0; rename one$"):
        run(folder, tmp_path / "twice", "pcm16")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"neither a data directory \(no utt2spk\) nor a folder of .wav, .flac, .sph"):
        run(tmp_path / "empty", tmp_path / "none", "pcm16")


@pytest.mark.parametrize("kind", ["pcm16", "mulaw"])
def test_a_damaged_part_is_done_again_and_no_other(data, tmp_path, kind):
    out, stem = tmp_path / kind, "pcm" if kind == "pcm16" else "feats"
    run(data[0], out, kind, "--nj", 2)
    archives = [out / f"{stem}.{job}.ark" for job in (1, 2)]
    for damage in (
        lambda: archives[1].write_bytes(archives[1].read_bytes()[:-1]),  # of a job that was killed, or cut by a copy
        archives[1].unlink,
        (out / "shard.2.json").unlink,
        lambda: (out / "shard.2.json").write_text("{"),
    ):
        before = [archive.stat().st_mtime_ns for archive in archives]
        content = archives[1].read_bytes()
        assert run(data[0], out, kind, "--nj", 2, "--check") == 0
        damage()
        assert run(data[0], out, kind, "--nj", 2, "--check") == 1
        run(data[0], out, kind, "--nj", 2)
        after = [archive.stat().st_mtime_ns for archive in archives]
        assert after[0] == before[0] and after[1] > before[1] and archives[1].read_bytes() == content
        assert run(data[0], out, kind, "--nj", 2, "--check") == 0


def test_mulaw_codes(data, tmp_path):
    directory, utterances = data
    run(directory, tmp_path / "mulaw", "mulaw")
    codes = kaldiio.load_scp(str(tmp_path / "mulaw" / "feats.scp"))
    table = build_coding("mulaw").codes
    for name, samples in utterances.items():
        np.testing.assert_array_equal(codes[name], table[samples.astype(int) + 32768])


def test_log_mel(data, tmp_path):
    directory, utterances = data
    run(directory, tmp_path / "logmel", "logmel")
    features = kaldiio.load_scp(str(tmp_path / "logmel" / "feats.scp"))
    counts = dict(line.split() for line in (tmp_path / "logmel" / "utt2num_frames").open())
    for name, samples in utterances.items():
        assert features[name].shape == (len(samples) // MEL_HOP_FRAMES + 1, MEL_BINS)
        assert counts[name] == str(len(features[name])) and np.isfinite(features[name]).all()
    tone = np.round(8000 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)).astype(np.int16)
    from speechlvm.data.dumps.features import log_mel

    # 1 kHz lies a third of the way up the mel scale to 8 kHz
    assert 20 <= log_mel(16000)(tone)[100].argmax() <= 32


def test_what_changed_is_dumped_again(data, tmp_path, speech_like):
    directory, _ = data
    out = tmp_path / "pcm16"
    run(directory, out, "pcm16")
    before = open_dump(out).info["data_hash"]
    write_wav(tmp_path / "spk_u0.wav", speech_like(1500, 77), 16000)
    assert run(directory, out, "pcm16", "--check") == 1
    run(directory, out, "pcm16")
    assert open_dump(out).info["data_hash"] != before


def test_another_rate_and_missing_audio(data, tmp_path):
    directory, _ = data
    with pytest.raises(UserError, match=r"16000.*8000|8000.*16000"):
        run(directory, tmp_path / "pcm16", "pcm16", "--rate_hz", 8000)
    with pytest.raises(ConfigError, match="1 <= job <= nj"):
        run(directory, tmp_path / "x", "pcm16", "--nj", 0)
    (tmp_path / "spk_u1.wav").unlink()
    with pytest.raises(UserError, match=r"spk_u1\.wav: No such file"):
        run(directory, tmp_path / "pcm16", "pcm16")
    assert not (tmp_path / "pcm16" / "done.json").exists()


def test_recordings_are_cut_into_segments(data, tmp_path, capsys):
    directory, utterances = data  # of 1500, 1600 and 1700 frames
    for jobs in (1, 2):
        out = tmp_path / f"pcm{jobs}"
        run(directory, out, "pcm16", "--segment_frames", 500, "--nj", jobs)
        dump = open_dump(out)
        assert len(dump.records) == 3 + 4 + 4 and dump.frames == 1500 + 1600 + 1700
        for name, samples in utterances.items():
            for start in range(0, len(samples), 500):
                np.testing.assert_array_equal(dump.read(f"{name}-{start:010d}"), samples[start : start + 500])
    assert (tmp_path / "pcm1/utt2num_samples").read_text() == (tmp_path / "pcm2/utt2num_samples").read_text()
    shown = capsys.readouterr().out
    assert "3 recordings cut into 11 segments of 500 frames, 2 of them shorter (ends of recordings)" in shown
    assert run(directory, tmp_path / "pcm1", "pcm16", "--check") == 1
    with pytest.raises(ConfigError, match="--segment_frames 0: expected at least 1"):
        run(directory, tmp_path / "x", "pcm16", "--segment_frames", 0)


def test_the_rate_is_that_of_the_audio_and_one_for_all(data, tmp_path, speech_like):
    directory, _ = data
    for name in ("spk_u0", "spk_u1", "spk_u2"):
        write_wav(tmp_path / f"{name}.wav", speech_like(1500, 1), 22050)
    run(directory, tmp_path / "pcm16", "pcm16")
    assert open_dump(tmp_path / "pcm16").rate_hz == 22050
    write_wav(tmp_path / "spk_u2.wav", speech_like(1500, 1), 16000)
    with pytest.raises(UserError, match=r"spk_u2\.wav: sampling rate 16000 Hz; expected 22050 Hz"):
        run(directory, tmp_path / "pcm16", "pcm16")


def test_a_set_that_was_not_prepared_says_which_stage_makes_it(tmp_path):
    with pytest.raises(UserError, match=r"data/dev: no such data directory; run stage 1"):
        run(tmp_path / "data/dev", tmp_path / "pcm16", "pcm16")


def test_features_of_other_toolkits_beside_the_audio_are_left_alone(data, tmp_path):
    directory, utterances = data
    places = dict.fromkeys(utterances, "/elsewhere/mfcc.ark:7")
    (directory / "feats.scp").write_text("".join(f"{name} {place}\n" for name, place in sorted(places.items())))
    assert validate(directory) == []
    assert run(data[0], tmp_path / "pcm16", "pcm16") == 0
    assert set(open_dump(tmp_path / "pcm16").records) == set(utterances)
    again = load_data_dir(directory)
    write_data_dir(again, tmp_path / "copy")
    assert again.feats == places and load_data_dir(tmp_path / "copy") == again
