"""Recordings of utterances: parts of recordings (segments), and commands (pipes) where they are allowed."""

import shlex
import signal

import kaldiio
import numpy as np
import pytest
from imitations.audio import RATE_HZ, SAMPLES, save, streamed_flac, wave
from programs import call

from speechlvm.bin import dump as dump_program
from speechlvm.bin import fix_data_dir, validate_data_dir
from speechlvm.data.audio import write_wav
from speechlvm.data.dumps import open_dump
from speechlvm.data.kaldi.directory import load_data_dir, write_data_dir
from speechlvm.data.kaldi.fix import fix
from speechlvm.data.kaldi.recordings import Recordings
from speechlvm.data.kaldi.tables import FIXER
from speechlvm.data.kaldi.validate import validate
from speechlvm.utils.errors import UserError

SEGMENTS = """a-1 rec-1 0 0.25
a-2 rec-1 0.25 -1
b-1 rec-0 0.0625 0.1
b-2 rec-0 0.00001 0.05
"""
BOUNDS = {"a-1": (1, 0, 4000), "a-2": (1, 4000, 8001), "b-1": (0, 1000, 1600), "b-2": (0, 0, 800)}


@pytest.fixture
def samples(speech_like):
    return [speech_like(3200, 0), speech_like(8001, 1)]


@pytest.fixture
def directory(tmp_path, samples):
    for number, values in enumerate(samples):
        write_wav(tmp_path / f"rec {number}.wav", values, RATE_HZ)
    path = tmp_path / "data"
    path.mkdir()
    (path / "segments").write_text(SEGMENTS)
    (path / "wav.scp").write_text("".join(f"rec-{n} {tmp_path}/rec {n}.wav\n" for n in (0, 1)))
    (path / "utt2spk").write_text("a-1 a\na-2 a\nb-1 b\nb-2 b\n")
    fix(path)
    return path


def dump(path, out, *words):
    return call(dump_program.main, "--data", path, "--out", out, *words)


def test_parts_of_recordings(directory, samples, tmp_path):
    assert validate(directory) == []
    assert (directory / "utt2num_samples").read_text() == "a-1 4000\na-2 4001\nb-1 600\nb-2 800\n"
    assert dump(directory, tmp_path / "dump", "--nj", 2).returncode == 0
    made = open_dump(tmp_path / "dump")
    for utterance, (recording, start, stop) in BOUNDS.items():
        np.testing.assert_array_equal(made.read(utterance), samples[recording][start:stop])
    assert [utterance for utterance, _ in kaldiio.load_scp_sequential(str(tmp_path / "dump/pcm.scp"))] == sorted(BOUNDS)


def test_parts_of_recordings_in_pieces(directory, samples, tmp_path):
    assert dump(directory, tmp_path / "dump", "--segment_frames", 3000).returncode == 0
    made = open_dump(tmp_path / "dump")
    assert {u: r.frames for u, r in made.records.items() if u.startswith("a-2")} == {
        "a-2-0000000000": 3000, "a-2-0000003000": 1001
    }  # fmt: skip
    np.testing.assert_array_equal(made.read("a-2-0000003000"), samples[1][7000:])


def test_changed_times_are_dumped_again(directory, tmp_path):
    dump(directory, tmp_path / "dump")
    assert dump(directory, tmp_path / "dump", "--check").returncode == 0
    (directory / "segments").write_text(SEGMENTS.replace("0.0625 0.1", "0.0625 0.11"))
    fix(directory)
    assert dump(directory, tmp_path / "dump", "--check").returncode == 1


def test_segments_are_written_as_they_were_read(directory, tmp_path):
    data = load_data_dir(directory)
    write_data_dir(data, tmp_path / "again")
    assert load_data_dir(tmp_path / "again") == data
    assert (tmp_path / "again" / "segments").read_text() == SEGMENTS


def edited(old: str, new: str):
    return lambda text: text.replace(old, new)


WRONG_TIMES = {
    "end before start": (edited("0 0.25\n", "0.25 0.25\n"), "1: a-1: ends at 0.25 s, not after its start at 0.25 s; "),
    "negative start": (edited("rec-1 0 0.25", "rec-1 -0.5 0.25"), "1: a-1: times '-0.5' and '0.25'; expected seconds"),
    "negative end": (edited("0.25 -1", "0.25 -2"), "2: a-2: times '0.25' and '-2'; expected seconds from 0 (end -1: "),
    "no number": (edited("0.0625", "1e-3"), "3: b-1: times '1e-3' and '0.1'; expected seconds"),
    "past the end": (edited("0.25 -1", "0.25 1.51"), "2: a-2: ends at sample 24160, past the 8001 of 'rec-1' at 16000"),
    "half a second past the end": (edited("0.25 -1", "0.25 1.0001"), "2: a-2: ends at sample 16002, past the 8001 of "),
    "from past the end": (edited("0.25 -1", "7 -1"), "2: a-2: samples 112000 to 8001 of 'rec-1', which has 8001 at"),
    "between samples": (edited("0.0625 0.1", "0.0625 0.06251"), "3: b-1: samples 1000 to 1000 of 'rec-0', which has"),
    "columns": (edited("rec-1 0 0.25", "rec-1 0"), "1: 3 columns; expected 4 (utterance recording start end)"),
    "unsafe recording": (edited("a-1 rec-1", "a-1 a/b"), "1: unsafe id 'a/b'; allowed are"),
}


@pytest.mark.parametrize(("edit", "error"), WRONG_TIMES.values(), ids=WRONG_TIMES)
def test_errors_that_only_the_owner_can_fix(directory, edit, error):
    path = directory / "segments"
    path.write_text(edit(path.read_text()))
    (found,) = [found for found in validate(directory) if found.startswith(f"{path}:{error}")]
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    with pytest.raises(UserError) as refused:
        fix(directory)
    assert str(refused.value).startswith(found)
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == before


def test_ends_a_little_after_the_recording_are_cut(directory):
    path = directory / "segments"
    path.write_text(edited("0.25 -1", "0.25 0.51")(edited("0.05", "0.7")(path.read_text())))
    error = f"{path}:2: a-2: ends at sample 8160, past the 8001 of 'rec-1' at 16000 Hz; {FIXER}"
    assert error in validate(directory) and len(validate(directory)) == 2
    assert fix(directory)[0] == (
        f"{path}: 2 utterances cut at the end of the recording, up to 0.5 s too late: a-2, b-2"
    )
    assert path.read_text() == edited("0.05", "0.2")(edited("0.25 -1", "0.25 0.500062")(SEGMENTS))
    assert validate(directory) == [] and fix(directory) == []
    assert load_data_dir(directory).num_samples == {"a-1": 4000, "a-2": 4001, "b-1": 600, "b-2": 3200}


def test_what_has_no_recording_or_no_segment_is_removed(directory, tmp_path):
    lines = (directory / "wav.scp").read_text().splitlines(keepends=True)
    write_wav(tmp_path / "rec 2.wav", np.arange(99, dtype=np.int16), RATE_HZ)
    (directory / "wav.scp").write_text(f"{lines[1]}rec-2 {tmp_path}/rec 2.wav\n")
    assert validate(directory) == [
        f"{directory}/wav.scp:2: recording 'rec-2' is not in segments; {FIXER}",
        f"{directory}/segments:3: recording 'rec-0' is not in wav.scp; {FIXER}",
    ]
    assert fix(directory) == [
        f"{directory}/utt2spk:3: removed 'b-1 b': b-1 not in wav.scp",
        f"{directory}/utt2spk:4: removed 'b-2 b': b-2 not in wav.scp",
        f"{directory}/wav.scp:2: removed 'rec-2 {tmp_path}/rec 2.wav': rec-2 has no utterance",
        f"{directory}/segments:3: removed 'b-1 rec-0 0.0625 0.1': b-1 not in wav.scp",
        f"{directory}/segments:4: removed 'b-2 rec-0 0.00001 0.05': b-2 not in wav.scp",
        f"{directory}/spk2utt: recomputed from utt2spk",
        f"{directory}/utt2num_samples: recomputed from the audio files",
    ]
    assert validate(directory) == [] and fix(directory) == []


# --- Commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def piped(directory, tmp_path):
    """The same audio, by way of commands that leave a trace."""
    lines = [
        f"rec-{n} touch {shlex.quote(str(tmp_path))}/canary; cat {shlex.quote(str(tmp_path / f'rec {n}.wav'))} |\n"
        for n in (0, 1)
    ]
    (directory / "wav.scp").write_text("".join(lines))
    return directory


def test_commands_are_not_run_unless_that_is_asked_for(piped, tmp_path):
    allow = "give --allow_pipes if you trust every command in it, or write the path of an audio file"
    for program in (validate_data_dir.main, fix_data_dir.main):
        done = call(program, piped)
        assert done.returncode == 1
        assert f"error: {piped}/wav.scp:1: rec-0: 'touch {shlex.quote(str(tmp_path))}/canary; cat " in done.stderr
        assert f"rec 0.wav' |' is a command; {allow}" in done.stderr
    done = dump(piped, tmp_path / "dump")
    assert done.returncode == 1 and f"{piped}/wav.scp: rec-0: 'touch " in done.stderr and allow in done.stderr
    load_data_dir(piped)  # the labels of such a directory can be read
    assert not (tmp_path / "canary").exists() and not (tmp_path / "dump").exists()


def test_commands_that_are_allowed_give_the_same_samples(piped, samples, tmp_path):
    assert call(validate_data_dir.main, "--allow_pipes", piped).stdout == f"{piped}: valid\n"
    assert call(fix_data_dir.main, "--allow-pipes", piped).stdout == f"{piped}: nothing to fix\n"
    assert dump(piped, tmp_path / "dump", "--allow_pipes").returncode == 0
    np.testing.assert_array_equal(open_dump(tmp_path / "dump").read("a-2"), samples[1][4000:])
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "cat {file}; echo out of tea >&2; exit 3 |",
            "' exited with status 3, saying: out of tea; its output is not used",
        ),
        (
            "cat /dev/null/gone | cat |",
            "' exited with status 1, saying: cat: /dev/null/gone: Not a directory; its",
        ),
        ("head -c 1000 {file} |", "output of 'head -c 1000 "),
        ("true |", "output of 'true |': empty file; fix the command\n"),
        (
            "echo '<html>' |",
            "expected NIST SPHERE, RIFF WAVE or FLAC; if it is audio, let the command convert it\n",
        ),
        ("kill -9 $$ |", "' exited with status -9; its output is not used; fix the command"),
    ],
)
def test_a_command_that_fails_is_an_error(piped, tmp_path, command, message):
    command = command.replace("{file}", shlex.quote(str(tmp_path / "rec 0.wav")))
    lines = (piped / "wav.scp").read_text().splitlines()
    (piped / "wav.scp").write_text(f"rec-0 {command}\n{lines[1]}\n")
    done = call(validate_data_dir.main, "--allow_pipes", piped)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {piped}/wav.scp:1: rec-0: "), done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1
    done = dump(piped, tmp_path / "dump", "--allow_pipes")
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "dump" / "done.json").exists()


def test_a_command_can_fail_though_whoever_started_us_ignores_ended_children(piped, tmp_path):
    lines = (piped / "wav.scp").read_text().splitlines()
    (piped / "wav.scp").write_text(f"rec-0 cat {shlex.quote(str(tmp_path / 'rec 0.wav'))}; exit 3 |\n{lines[1]}\n")
    previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        done = call(validate_data_dir.main, "--allow_pipes", piped)
    finally:
        signal.signal(signal.SIGCHLD, previous)
    assert done.returncode == 1 and "' exited with status 3; its output is not used" in done.stderr


STREAMED = {"wav": wave(size=0xFFFFFFFF), "wav of 0": wave(size=0), "flac": streamed_flac(save(format="FLAC"))}


@pytest.mark.parametrize("segments", ["", "s-a rec 0 -1\n"], ids=["whole", "part"])
@pytest.mark.parametrize("content", STREAMED.values(), ids=STREAMED)
def test_output_of_a_command_is_complete_whatever_its_header_says(tmp_path, content, segments):
    (tmp_path / "a b").write_bytes(content)
    (tmp_path / "data").mkdir()
    key, command = "rec" if segments else "s-a", f"cat {shlex.quote(str(tmp_path / 'a b'))} |"
    files = {"wav.scp": f"{key} {command}\n", "utt2spk": "s-a s\n", "spk2utt": "s s-a\n"}
    files |= {"utt2num_samples": "s-a 4800\n", **({"segments": segments} if segments else {})}
    for name, text in files.items():
        (tmp_path / "data" / name).write_text(text)
    assert validate(tmp_path / "data", allow_pipes=True) == []
    recordings = Recordings(load_data_dir(tmp_path / "data"), tmp_path / "data", allow_pipes=True)
    np.testing.assert_array_equal(np.concatenate(list(recordings.blocks("s-a", RATE_HZ, 1000))), SAMPLES)
