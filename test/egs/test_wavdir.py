"""The recipe for a folder of one's own: messy folders give clean sets, and what is wrong with a file is named."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import programs
import pytest
import soundfile
from imitations import wavdir

from speechlvm.bin import validate_data_dir
from speechlvm.data.audio import read_audio
from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.data.kaldi.validate import validate

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "egs/wavdir/local"
SETS = ("train", "valid", "test")
CONVERT = ("--bits", "16", "--channel", "mix")


@pytest.fixture(scope="module")
def prepare():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LOCAL)
        return programs.load(LOCAL / "prepare.py")


@pytest.fixture
def run(prepare):
    def command(folder: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess:
        return programs.call(prepare.main, "--wav_dir", folder, "--out", out, *arguments)

    return command


@pytest.fixture
def messy(tmp_path) -> Path:
    return wavdir.make(tmp_path / "my recordings", frames=2000)


@pytest.fixture
def plain(tmp_path) -> Path:
    """Ten short 16-bit mono files."""
    root = tmp_path / "plain"
    root.mkdir()
    for index in range(10):
        save(root / f"{index}.wav", wavdir.tone(index, 800 + index))
    return root


def save(path: Path, samples: np.ndarray, rate_hz: int = wavdir.RATE_HZ, subtype: str = "PCM_16") -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    soundfile.write(path, samples, rate_hz, subtype=subtype)


def load(out: Path) -> dict:
    assert [fault for name in SETS for fault in validate(out / name)] == []
    return {name: load_data_dir(out / name) for name in SETS}


def speakers_of(out: Path) -> dict[str, str]:
    return {utterance: speaker for data in load(out).values() for utterance, speaker in data.utt2spk.items()}


def sources(out: Path) -> dict[str, Path]:
    return {utterance: path for data in load(out).values() for utterance, path in data.wav.items()}


# --- What is read, and what becomes of it -----------------------------------------------------------------------------


def test_a_messy_folder_is_counted_and_converted_once(messy, tmp_path, run):
    result = run(messy, tmp_path / "out", *CONVERT)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("22 audio files of 16000 Hz: 16 used where they are, 6 converted to 16-bit mono in /")
    assert lines[1:7] == [
        "  1 aiff, 1 channel", "  1 of names that wav.scp cannot hold", "  1 ogg, 1 channel",
        "  1 wav 16-bit, 2 channels", "  1 wav 24-bit, 1 channel", "  1 wav 32-bit float, 1 channel",
    ]  # fmt: skip
    assert [line.split(",")[0] for line in lines[7:]] == [
        "train: 17 utterances", "valid: 2 utterances", "test: 2 utterances"
    ]  # fmt: skip
    assert "speakers" not in result.stdout  # nobody knows them
    warnings = result.stderr.splitlines()
    assert len(warnings) == 4
    assert warnings[0] == "warning: 1 files are not audio by their endings and were left out: anna/notes.txt"
    assert warnings[1].endswith("left out: copy of 000.wav (as anna/000.wav)")
    assert warnings[2].startswith("warning: 2 hidden files") and "._000.wav" in warnings[2]
    assert warnings[3].endswith(": sessions 2/up")

    found = sources(tmp_path / "out")
    assert len(found) == 21 and found["lossless"] == messy / "lossless.FLAC" and found["ete_1"] == messy / "été (1).wav"
    for name, path in found.items():
        assert (path.parent == tmp_path / "out/audio") == (
            name in ("mac", "two_nlines", "phone", "stereo", "studio", "editor")
        )
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/audio").iterdir()}
    assert len(stamps) == 12  # each with its record

    again = run(messy, tmp_path / "out", *CONVERT)
    assert (again.returncode, again.stdout) == (0, f"{tmp_path / 'out'}: complete\n")
    other = run(messy, tmp_path / "out", *CONVERT, "--test_size", "3")
    assert other.returncode == 0 and len(load(tmp_path / "out")["test"].utt2spk) == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/audio").iterdir()} == stamps


def test_samples_are_what_they_should_be(messy, tmp_path, run):
    assert run(messy, tmp_path / "out", *CONVERT).returncode == 0
    found = sources(tmp_path / "out")
    for name in ("two_nlines", "studio", "editor", "mac"):
        original = next(path for path in messy.iterdir() if path.stem.replace("\n", "_n") == name)
        expected, _ = soundfile.read(original, dtype="float64")
        assert np.array_equal(read_audio(found[name]), np.rint(expected * 32768)), name
    left, _ = soundfile.read(messy / "stereo.wav", dtype="int16")
    mixed = read_audio(found["stereo"])
    assert np.abs(mixed - left.mean(axis=1)).max() <= 0.5
    assert run(messy, tmp_path / "one", "--bits", "16", "--channel", "0").returncode == 0
    assert np.array_equal(read_audio(sources(tmp_path / "one")["stereo"]), left[:, 0])


def test_conversions_that_are_lost_or_out_of_use(messy, tmp_path, run):
    out = tmp_path / "out"
    assert run(messy, out, *CONVERT).returncode == 0
    shutil.rmtree(out / "audio")
    assert run(messy, out, *CONVERT).returncode == 0 and len(load(out)["train"].utt2spk) == 17
    (messy / "stereo.wav").unlink()
    assert run(messy, out, *CONVERT).returncode == 0
    assert len(list((out / "audio").glob("*.wav"))) == 5


def test_odd_files_are_read_and_told_in_one_warning(plain, tmp_path, run):
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
    checked = [programs.call(validate_data_dir.main, tmp_path / "out" / name) for name in SETS]
    assert [done.stderr for done in checked] == ["", "", ""]  # once is enough


def test_one_rate_or_a_word_on_what_to_do(plain, tmp_path, run):
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
    lengths = {u: n for data in load(tmp_path / "out").values() for u, n in data.num_samples.items()}
    assert abs(lengths["tape"] - 900 * 16000 / 44100) <= 1


def test_any_rate_is_kept(tmp_path, run):
    for index in range(4):
        save(tmp_path / f"in/{index}.wav", wavdir.tone(index, 500), 22050)
    result = run(tmp_path / "in", tmp_path / "out")
    assert result.stdout.startswith("4 audio files of 22050 Hz: 4 used where they are, 0 converted\n")


def test_no_test_file_is_in_training_under_another_name(plain, tmp_path, run):
    for index in range(10):
        (plain / f"copy of {index}.wav").write_bytes((plain / f"{index}.wav").read_bytes())
        samples, rate_hz = soundfile.read(plain / f"{index}.wav", dtype="int16")
        save(plain / f"deep/{index}.flac", samples, rate_hz)
    result = run(plain, tmp_path / "out", "--valid_size", "3", "--test_size", "3")
    assert result.returncode == 0 and "20 files hold the same samples as another and were left out" in result.stderr
    digests = [read_audio(path).tobytes() for path in sources(tmp_path / "out").values()]
    assert len(digests) == len(set(digests)) == 10


# --- Ids, speakers, sets ----------------------------------------------------------------------------------------------


def test_speakers(messy, tmp_path, run):
    result = run(messy, tmp_path / "f", *CONVERT, "--speakers", "folder")
    assert (
        result.returncode == 0 and result.stdout.count(" speakers") == 3 and result.stdout.count("also in train") == 2
    )
    spoken = speakers_of(tmp_path / "f")
    assert spoken["anna-003"] == "anna" and spoken["celik-002"] == "celik"
    assert spoken["bruno_the_voice_O_Neil-001"] == "bruno_the_voice_O_Neil"
    assert spoken["my_recordings-stereo"] == "my_recordings"

    root = tmp_path / "p"
    for index, name in enumerate(
        ("84-121-0.wav", "84_122.wav", "anna b-1.wav", "Émile_x.wav", "日本-1.wav", "中国-1.wav")
    ):
        save(root / name, wavdir.tone(index, 500))
    assert run(root, tmp_path / "q", "--speakers", "prefix").returncode == 0
    spoken = speakers_of(tmp_path / "q")
    assert spoken["84-121-0"] == spoken["84_122"] == "84"
    assert spoken["anna_b-1"] == "anna_b" and spoken["Emile_x"] == "Emile"
    # what has no letters of ids is still two speakers
    assert len(set(spoken.values())) == 5


def test_ids_are_safe_and_unique_and_do_not_depend_on_the_order(tmp_path, run):
    names = [
        "a b.wav",
        "a_b.wav",
        "a/b.wav",
        "a-b.wav",
        "-x.wav",
        "日本.wav",
        "語.wav",
        "x" * 200 + ".wav",
        "$(id);'\"`.wav",
    ]
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


def test_a_name_that_is_no_text_is_copied(plain, tmp_path, run):
    name = os.fsencode(plain) + b"/caf\xe9.wav"
    Path(os.fsdecode(name)).write_bytes((plain / "0.wav").read_bytes())
    (plain / "0.wav").unlink()
    result = run(plain, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert sources(tmp_path / "out")["caf_xe9"].parent == tmp_path / "out/audio"


def test_the_draw_is_the_same_everywhere_and_stays_when_files_come(plain, tmp_path, run):
    sizes = ("--valid_size", "2", "--test_size", "2")
    assert run(plain, tmp_path / "a", *sizes).returncode == 0
    shutil.copytree(plain, tmp_path / "elsewhere")
    assert run(tmp_path / "elsewhere", tmp_path / "b", *sizes).returncode == 0
    a, b = load(tmp_path / "a"), load(tmp_path / "b")
    assert {name: data.utterances for name, data in a.items()} == {name: data.utterances for name, data in b.items()}
    assert a["test"].utterances == ["4", "6"]  # by SHA-256 of "0 4.wav" and so on
    for index in range(20, 30):
        save(plain / f"{index}.wav", wavdir.tone(index, 700))
    assert run(plain, tmp_path / "c", "--valid_size", "2", "--test_size", "12").returncode == 0
    assert {"4", "6"} <= set(load(tmp_path / "c")["test"].utterances)


def test_speakers_are_kept_together(tmp_path, run):
    for speaker in "abcdefghij":
        for index in range(3):
            save(tmp_path / f"in/{speaker}/{index}.wav", wavdir.tone(ord(speaker) * 3 + index, 500))
    arguments = ("--speakers", "folder", "--split", "speaker", "--valid_size", "0.2", "--test_size", "1")
    result = run(tmp_path / "in", tmp_path / "out", *arguments)
    assert result.returncode == 0, result.stderr
    found = {name: set(data.utt2spk.values()) for name, data in load(tmp_path / "out").items()}
    assert {name: len(speakers) for name, speakers in found.items()} == {"train": 7, "valid": 2, "test": 1}
    assert len(set.union(*found.values())) == 10
    assert "test: 3 utterances, 0.000 hours, mean length 0.03 s, 1 speakers, 0 of them also in train" in result.stdout


# --- What is wrong ----------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def not_finite(root: Path) -> None:
    save(root / "f.wav", np.array([0.1, np.nan, 0.2]), subtype="FLOAT")


FAULTS = {
    "empty": (lambda root: (root / "0.wav").write_bytes(b""), "0.wav: empty file"),
    "no samples": (lambda root: save(root / "0.wav", np.zeros(0, np.int16)), "0.wav: no samples"),
    "no samples, aiff": (lambda root: save(root / "z.aiff", np.zeros(0, np.int16)), "z.aiff: no samples"),
    "cut": (lambda root: cut(root / "0.wav"), "0.wav: header says 800 samples, found 750"),
    "a page": (lambda root: (root / "0.flac").write_text("<html>404</html>"), "0.flac: cannot be read as audio ("),
    "a page named mp3": (lambda root: (root / "0.mp3").write_text("<html>404</html>"), "0.mp3: cannot be "),
    "not finite": (not_finite, "f.wav: "),
    "m4a": (lambda root: (root / "0.M4A").write_bytes(b"x"), "0.M4A: .m4a is not read here; convert it, for example"),
    "dangling": (lambda root: (root / "l.wav").symlink_to("nowhere"), "l.wav: dangling symbolic link"),
    "link to itself": (lambda root: (root / "l.wav").symlink_to("l.wav"), "l.wav: Too many levels of symbolic links"),
    "fifo": (lambda root: os.mkfifo(root / "l.wav"), "l.wav: not a regular file"),
    "lines": (lambda root: (root / "a\nb.wav").write_bytes(b""), "a\\nb.wav: empty file"),
}


@pytest.mark.parametrize("change, message", FAULTS.values(), ids=FAULTS)
def test_faults_name_the_file_and_nothing_is_written(plain, tmp_path, run, change, message):
    change(plain)
    result = run(plain, tmp_path / "out", *CONVERT)
    assert result.returncode == 1 and f"error: {plain}/{message}" in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr
    assert not any((tmp_path / "out" / name).exists() for name in SETS)


def test_what_comes_later_is_looked_at(plain, tmp_path, run):
    assert run(plain, tmp_path / "out").returncode == 0
    (plain / "new.m4a").write_bytes(b"x")
    (plain / "new.wav").write_bytes(b"")
    result = run(plain, tmp_path / "out")
    assert result.returncode == 1 and "new.m4a: " in result.stderr and "new.wav: empty file" in result.stderr
    (plain / "new.wav").unlink()
    assert run(plain, tmp_path / "out").returncode == 1


def test_all_faults_are_named(plain, tmp_path, run):
    for index in range(3):
        (plain / f"{index}.wav").write_bytes(b"RIFF")
    result = run(plain, tmp_path / "out")
    assert result.returncode == 1 and result.stderr.count("error: ") == 3
    assert result.stderr.endswith("(3 errors in total; nothing was written)\n")


def test_folders_that_are_none_or_hold_nothing(tmp_path, run):
    result = run(tmp_path / "nowhere", tmp_path / "out")
    assert result.returncode == 1 and "no such folder" in result.stderr
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("a")
    result = run(tmp_path / "texts", tmp_path / "out")
    assert result.returncode == 1 and "no audio files in it or in any folder below; looked for .wav " in result.stderr


def test_too_little_for_three_sets(plain, tmp_path, run):
    for index in range(2, 10):
        (plain / f"{index}.wav").unlink()
    result = run(plain, tmp_path / "out")
    assert result.returncode == 1 and "2 files; at least 3 are needed, one for each of train, valid" in result.stderr
    (plain / "copy.wav").write_bytes((plain / "0.wav").read_bytes())
    assert "2 files; at least 3 are needed" in run(plain, tmp_path / "out").stderr


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["--speakers", "folder", "--split", "speaker"], 1, "1 speaker; at least 3 are needed"),
        (["--split", "speaker"], 2, "--split speaker: say who speaks, by --speakers folder or --speakers prefix"),
        (["--valid_size", "5", "--test_size", "0.5"], 2, "5 + 5 of 10 files leave none for training"),
        (["--test_size", "10"], 2, "--test_size 10: expected 1 to 9, as there are 10 files"),
        (["--test_size", "0"], 2, "--test_size 0: expected 1 to 9"),
        (["--valid_size", "1.5"], 2, "--valid_size 1.5: expected a share below 1 (0.1), or a number of files (20)"),
        (["--valid_size", "nan"], 2, "--valid_size nan: expected a share"),
        (["--rate_hz", "16k"], 2, "'16k': expected an integer in Hz"),
        (["--rate_hz", "0"], 2, "'0': expected an integer in Hz"),
        (["--channel", "left"], 2, "'left': expected mix, or the number of a channel from 0"),
        (["--speakers", "me"], 2, "invalid choice"),
    ],
)
def test_wrong_settings(plain, tmp_path, run, arguments, status, message):
    result = run(plain, tmp_path / "out", *arguments)
    assert result.returncode == status and message in result.stderr, result.stderr
    assert not (tmp_path / "out/train").exists()


def test_a_channel_that_is_not_there_is_a_fault(plain, tmp_path, run):
    save(plain / "s.wav", np.zeros((700, 2), np.int16))
    result = run(plain, tmp_path / "out", "--channel", "2")
    assert result.returncode == 1 and "s.wav: no channel 2, as it has 2" in result.stderr


def test_what_we_write_ourselves_is_not_searched(plain, tmp_path, run):
    out = plain / "data"
    save(plain / "s.wav", np.zeros((700, 2), np.int16))
    save(plain / "exp/m/samples/prior_1.wav", wavdir.tone(60, 700))
    for _ in range(2):
        apart = ("--apart", str(plain / "exp"), str(plain / "dump"))
        result = run(plain, out, *CONVERT, *apart, "--test_size", "2")
        assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.endswith("complete\n")
    assert sum(len(data.utt2spk) for data in load(out).values()) == 11


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_that_may_not_be_read(plain, tmp_path, run):
    (plain / "closed").mkdir(mode=0)
    result = run(plain, tmp_path / "out")
    assert result.returncode == 1 and "closed: cannot be searched (Permission denied)" in result.stderr


def test_as_the_stage_runs_it(messy, tmp_path):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    arguments = ["--wav_dir", messy, "--out", tmp_path / "the sets", "--speakers", "folder"]
    command = ["bash", "local/data.sh", *arguments, "--rate_hz", "", *CONVERT]
    result = subprocess.run(command, cwd=ROOT / "egs/wavdir", capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "22 audio files of 16000 Hz" in result.stdout
    command = ["bash", "local/download.sh", "--wav_dir", tmp_path / "no where"]
    result = subprocess.run(command, cwd=ROOT / "egs/wavdir", capture_output=True, text=True, env=environment)
    assert result.returncode == 1 and "--wav_dir DIR, or WAV_DIR= in db.sh" in result.stderr
