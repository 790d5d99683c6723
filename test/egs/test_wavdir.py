"""The recipe for a folder of one's own: messy folders give clean sets, and what is wrong with a file is named."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from imitations import wavdir
from programs import call, load

from speechlvm.bin import validate_data_dir
from speechlvm.data.audio import read_audio
from speechlvm.data.kaldi.directory import load_data_dir

SETS = ("train", "valid", "test")
CONVERT = ("--bits", "16", "--channel", "mix")

prepare = load(Path(__file__).resolve().parents[2] / "egs/wavdir/local/prepare.py")


def run(folder: Path, out: Path, *arguments: str):
    return call(prepare.main, "--wav_dir", folder, "--out", out, *arguments)


@pytest.fixture
def messy(tmp_path) -> Path:
    return wavdir.make(tmp_path / "my recordings", frames=2000)


@pytest.fixture
def plain(tmp_path) -> Path:
    """Ten short 16-bit mono files."""
    for index in range(10):
        save(tmp_path / f"plain/{index}.wav", wavdir.tone(index, 800 + index))
    return tmp_path / "plain"


def save(path: Path, samples: np.ndarray, rate_hz: int = wavdir.RATE_HZ, subtype: str = "PCM_16") -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    soundfile.write(path, samples, rate_hz, subtype=subtype)


def sets_of(out: Path) -> dict:
    return {name: load_data_dir(out / name) for name in SETS}


def speakers_of(out: Path) -> dict[str, str]:
    return {utterance: speaker for data in sets_of(out).values() for utterance, speaker in data.utt2spk.items()}


def sources(out: Path) -> dict[str, Path]:
    return {utterance: path for data in sets_of(out).values() for utterance, path in data.wav.items()}


# --- What is read, and what becomes of it -----------------------------------------------------------------------------


def test_a_messy_folder_is_counted_and_converted_once(messy, tmp_path):
    out = tmp_path / "out"
    result = run(messy, out, *CONVERT)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("22 audio files of 16000 Hz: 16 used where they are, 6 converted to 16-bit mono in /")
    assert lines[1:7] == [
        "  1 aiff, 1 channel", "  1 of names that wav.scp cannot hold", "  1 ogg, 1 channel",
        "  1 wav 16-bit, 2 channels", "  1 wav 24-bit, 1 channel", "  1 wav 32-bit float, 1 channel",
    ]  # fmt: skip
    sizes = [line.split(",")[0] for line in lines[7:]]
    assert sizes == ["train: 17 utterances", "valid: 2 utterances", "test: 2 utterances"]
    assert "speakers" not in result.stdout  # nobody knows them
    warnings = result.stderr.splitlines()
    assert len(warnings) == 4
    assert warnings[0] == "warning: files are not audio by their endings and were left out: anna/notes.txt"
    assert warnings[1].endswith("left out: copy of 000.wav (as anna/000.wav)")
    assert warnings[2].startswith("warning: 2 hidden files") and "._000.wav" in warnings[2]
    assert warnings[3].endswith(": sessions 2/up")

    found = sources(out)
    assert len(found) == 21 and found["lossless"] == messy / "lossless.FLAC" and found["ete_1"] == messy / "été (1).wav"
    converted = {name for name, path in found.items() if path.parent == out / "audio"}
    assert converted == {"mac", "two_nlines", "phone", "stereo", "studio", "editor"}
    for name in ("two_nlines", "studio", "editor", "mac"):
        original = next(path for path in messy.iterdir() if path.stem.replace("\n", "_n") == name)
        assert np.array_equal(read_audio(found[name]), np.rint(soundfile.read(original)[0] * 32768)), name
    left, _ = soundfile.read(messy / "stereo.wav", dtype="int16")
    assert np.abs(read_audio(found["stereo"]) - left.mean(axis=1)).max() <= 0.5

    stamps = {path: path.stat().st_mtime_ns for path in (out / "audio").iterdir()}
    assert len(stamps) == 12  # each with its record
    assert run(messy, out, *CONVERT, "--test_size", "3").returncode == 0 and len(sets_of(out)["test"].utt2spk) == 3
    assert {path: path.stat().st_mtime_ns for path in (out / "audio").iterdir()} == stamps
    assert run(messy, out, "--bits", "16", "--channel", "0").returncode == 0
    assert np.array_equal(read_audio(sources(out)["stereo"]), left[:, 0])
    (messy / "stereo.wav").unlink()
    assert run(messy, out, *CONVERT).returncode == 0
    assert len(list((out / "audio").glob("*.wav"))) == 5  # without what is out of use


def test_odd_files_are_read_and_told_in_one_warning(plain, tmp_path):
    save(plain / "odd.wav", np.arange(801, dtype=np.int32) << 16, subtype="PCM_24")  # converted
    for name, more in (("3.wav", b"\0"), ("4.wav", bytes(500)), ("odd.wav", b"TAG" + bytes(125))):
        with open(plain / name, "ab") as file:
            file.write(more)
    result = run(plain, tmp_path / "out", "--bits", "16")
    assert result.stderr == (
        "warning: 3 audio files have malformed headers that other programs accept: "
        f"{plain}/3.wav (1 byte after the data), {plain}/4.wav (500 bytes after the data), "
        f"{plain}/odd.wav (128 bytes after the data)\n"
    )
    assert np.array_equal(read_audio(sources(tmp_path / "out")["4"]), soundfile.read(plain / "4.wav", dtype="int16")[0])
    checked = [call(validate_data_dir.main, tmp_path / "out" / name) for name in SETS]
    assert [done.stderr for done in checked] == ["", "", ""]  # once is enough


def test_one_rate_or_a_word_on_what_to_do(plain, tmp_path):
    save(plain / "tape.wav", wavdir.tone(50, 900), 44100)
    result = run(plain, tmp_path / "out")
    assert result.returncode == 1 and not (tmp_path / "out").exists()
    assert result.stderr == (
        f"error: 1 file of 44100 Hz, where 10 of 11 have 16000: {plain / 'tape.wav'}; "
        "resample all with --rate_hz 16000 (or another), or move them away\n"
    )
    result = run(plain, tmp_path / "out", "--rate_hz", "16000")
    assert result.returncode == 0, result.stderr
    assert "11 audio files of 16000 Hz: 10 used where they are, 1 converted" in result.stdout
    assert "  1 16-bit, 1 channel, 44100 Hz\n" in result.stdout
    lengths = {u: n for data in sets_of(tmp_path / "out").values() for u, n in data.num_samples.items()}
    assert abs(lengths["tape"] - 900 * 16000 / 44100) <= 1


def test_any_rate_is_kept(tmp_path):
    for index in range(4):
        save(tmp_path / f"in/{index}.wav", wavdir.tone(index, 500), 22050)
    result = run(tmp_path / "in", tmp_path / "out")
    assert result.stdout.startswith("4 audio files of 22050 Hz: 4 used where they are, 0 converted\n")


def test_no_test_file_is_in_training_under_another_name(plain, tmp_path):
    for index in range(10):
        (plain / f"copy of {index}.wav").write_bytes((plain / f"{index}.wav").read_bytes())
        samples, rate_hz = soundfile.read(plain / f"{index}.wav", dtype="int16")
        save(plain / f"deep/{index}.flac", samples, rate_hz)
    result = run(plain, tmp_path / "out", "--valid_size", "3", "--test_size", "3")
    assert result.returncode == 0 and "20 files hold the same samples as another and were left out" in result.stderr
    digests = [read_audio(path).tobytes() for path in sources(tmp_path / "out").values()]
    assert len(digests) == len(set(digests)) == 10


def test_what_we_write_ourselves_is_not_searched(plain):
    out = plain / "data"
    save(plain / "s.wav", np.zeros((700, 2), np.int16))
    save(plain / "exp/m/samples/prior_1.wav", wavdir.tone(60, 700))
    for _ in range(2):
        apart = ("--apart", str(plain / "exp"), str(plain / "dump"))
        result = run(plain, out, *CONVERT, *apart, "--test_size", "2")
        assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.endswith("complete\n")
    assert sum(len(data.utt2spk) for data in sets_of(out).values()) == 11


# --- Ids, speakers, sets ----------------------------------------------------------------------------------------------


def test_speakers(messy, tmp_path):
    result = run(messy, tmp_path / "f", *CONVERT, "--speakers", "folder")
    assert result.returncode == 0
    assert result.stdout.count(" speakers") == 3 and result.stdout.count("also in train") == 2
    spoken = speakers_of(tmp_path / "f")
    assert spoken["anna-003"] == "anna" and spoken["celik-002"] == "celik"
    assert spoken["bruno_the_voice_O_Neil-001"] == "bruno_the_voice_O_Neil"
    assert spoken["my_recordings-stereo"] == "my_recordings"

    names = ("84-121-0.wav", "84_122.wav", "anna b-1.wav", "Émile_x.wav", "日本-1.wav", "中国-1.wav")
    for index, name in enumerate(names):
        save(tmp_path / "p" / name, wavdir.tone(index, 500))
    assert run(tmp_path / "p", tmp_path / "q", "--speakers", "prefix").returncode == 0
    spoken = speakers_of(tmp_path / "q")
    assert spoken["84-121-0"] == spoken["84_122"] == "84"
    assert spoken["anna_b-1"] == "anna_b" and spoken["Emile_x"] == "Emile"
    # what has no letters of ids is still two speakers
    assert len(set(spoken.values())) == 5


def test_ids_are_safe_and_unique_and_do_not_depend_on_the_order(tmp_path):
    names = ["a b.wav", "a_b.wav", "a/b.wav", "a-b.wav", "-x.wav", "日本.wav", "語.wav", "$(id);'\"`.wav"]
    names.append("x" * 200 + ".wav")
    for index, name in enumerate(names):
        save(tmp_path / "in" / name, wavdir.tone(index, 500 + index))
    assert run(tmp_path / "in", tmp_path / "out").returncode == 0
    found = {path.name: utterance for utterance, path in sources(tmp_path / "out").items()}
    assert len(found) == len(names) and found["-x.wav"] == "x" and found["$(id);'\"`.wav"] == "id"
    assert found["a b.wav"].startswith("a_b-") and found["a_b.wav"].startswith("a_b-")
    assert len(set(found.values())) == len(found) and all(len(name) < 140 for name in found.values())
    again = tmp_path / "again"
    for name in reversed(names):
        (again / name).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(tmp_path / "in" / name, again / name)
    assert run(again, tmp_path / "out2").returncode == 0
    assert {p.name: u for u, p in sources(tmp_path / "out2").items()} == found


def test_a_name_that_is_no_text_is_copied(plain, tmp_path):
    name = os.fsencode(plain) + b"/caf\xe9.wav"
    Path(os.fsdecode(name)).write_bytes((plain / "0.wav").read_bytes())
    (plain / "0.wav").unlink()
    result = run(plain, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert sources(tmp_path / "out")["caf_xe9"].parent == tmp_path / "out/audio"


def test_the_draw_is_the_same_everywhere_and_stays_when_files_come(plain, tmp_path):
    sizes = ("--valid_size", "2", "--test_size", "2")
    assert run(plain, tmp_path / "a", *sizes).returncode == 0
    shutil.copytree(plain, tmp_path / "elsewhere")
    assert run(tmp_path / "elsewhere", tmp_path / "b", *sizes).returncode == 0
    a, b = sets_of(tmp_path / "a"), sets_of(tmp_path / "b")
    assert {name: data.utterances for name, data in a.items()} == {name: data.utterances for name, data in b.items()}
    assert a["test"].utterances == ["4", "6"]  # by SHA-256 of "0 4.wav" and so on
    for index in range(20, 30):
        save(plain / f"{index}.wav", wavdir.tone(index, 700))
    assert run(plain, tmp_path / "c", "--valid_size", "2", "--test_size", "12").returncode == 0
    assert {"4", "6"} <= set(sets_of(tmp_path / "c")["test"].utterances)


def test_speakers_are_kept_together(tmp_path):
    for speaker in "abcdefghij":
        for index in range(3):
            save(tmp_path / f"in/{speaker}/{index}.wav", wavdir.tone(ord(speaker) * 3 + index, 500))
    arguments = ("--speakers", "folder", "--split", "speaker", "--valid_size", "0.2", "--test_size", "1")
    result = run(tmp_path / "in", tmp_path / "out", *arguments)
    assert result.returncode == 0, result.stderr
    found = {name: set(data.utt2spk.values()) for name, data in sets_of(tmp_path / "out").items()}
    assert {name: len(speakers) for name, speakers in found.items()} == {"train": 7, "valid": 2, "test": 1}
    assert len(set.union(*found.values())) == 10
    assert "test: 3 utterances, 0.000 hours, mean length 0.03 s, 1 speaker, 0 of them also in train" in result.stdout


# --- What is wrong ----------------------------------------------------------------------------------------------------

FAULTS = {
    "0.wav: no samples": lambda root: save(root / "0.wav", np.zeros(0, np.int16)),
    "0.wav: header says 800 samples, found 750": lambda root: os.truncate(
        root / "0.wav", os.path.getsize(root / "0.wav") - 100
    ),
    "0.flac: cannot be read as audio (": lambda root: (root / "0.flac").write_text("<html>404</html>"),
    "f.wav: sample 1 is not a finite number": lambda root: save(
        root / "f.wav", np.array([0.1, np.nan, 0.2]), subtype="FLOAT"
    ),
    "0.M4A: .m4a is not read here; convert it, for example": lambda root: (root / "0.M4A").write_bytes(b"x"),
    "l.wav: dangling symbolic link": lambda root: (root / "l.wav").symlink_to("nowhere"),
    "l.wav: Too many levels of symbolic links": lambda root: (root / "l.wav").symlink_to("l.wav"),
    "l.wav: not a regular file": lambda root: os.mkfifo(root / "l.wav"),
    "a\\nb.wav: empty file": lambda root: (root / "a\nb.wav").write_bytes(b""),
}


@pytest.mark.parametrize(("message", "change"), FAULTS.items(), ids=FAULTS)
def test_faults_name_the_file_and_nothing_is_written(plain, tmp_path, change, message):
    change(plain)
    result = run(plain, tmp_path / "out", *CONVERT)
    assert result.returncode == 1 and f"error: {plain}/{message}" in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1
    assert not any((tmp_path / "out" / name).exists() for name in SETS)


def test_what_comes_later_is_looked_at(plain, tmp_path):
    assert run(plain, tmp_path / "out").returncode == 0
    (plain / "new.m4a").write_bytes(b"x")
    result = run(plain, tmp_path / "out")
    assert result.returncode == 1 and "new.m4a: " in result.stderr
    assert run(plain, tmp_path / "out").returncode == 1


def test_too_little_for_three_sets(plain, tmp_path):
    for index in range(2, 10):
        (plain / f"{index}.wav").unlink()
    (plain / "copy.wav").write_bytes((plain / "0.wav").read_bytes())
    result = run(plain, tmp_path / "out")
    assert result.returncode == 1 and "2 files; at least 3 are needed, one for each of train, valid" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--speakers", "folder", "--split", "speaker"], 1, "1 speaker; at least 3 are needed"),
        (["--split", "speaker"], 2, "--split speaker: say who speaks, by --speakers folder or --speakers prefix"),
        (["--valid_size", "5", "--test_size", "0.5"], 2, "5 + 5 of 10 files leave none for training"),
        (["--test_size", "10"], 2, "--test_size 10: expected 1 to 9, as there are 10 files"),
        (["--valid_size", "1.5"], 2, "--valid_size 1.5: expected a share below 1 (0.1), or a number of files (20)"),
        (["--valid_size", "nan"], 2, "--valid_size nan: expected a share"),
        (["--rate_hz", "0"], 2, "'0': expected an integer above 0"),
        (["--channel", "left"], 2, "'left': expected mix, or the number of a channel from 0"),
    ],
)
def test_wrong_settings(plain, tmp_path, arguments, status, message):
    result = run(plain, tmp_path / "out", *arguments)
    assert result.returncode == status and message in result.stderr, result.stderr
    assert not (tmp_path / "out/train").exists()


@pytest.mark.recipe
def test_the_recipe_runs(run_recipe):
    run_recipe("wavdir")
