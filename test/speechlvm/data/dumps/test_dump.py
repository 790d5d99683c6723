import shutil
import subprocess
import sys

import kaldiio
import numpy as np
import pytest

from speechlvm.data.dumps import dump as dumps
from speechlvm.data.dumps import open_dump, pcm
from speechlvm.utils.errors import UserError


def test_samples_come_back_whole_and_in_parts(make_dump, speech_like):
    dump = open_dump(make_dump("train", [1000, 1, 333], jobs=2))
    assert list(dump.records) == ["u00", "u01", "u02"]
    assert [record.frames for record in dump.records.values()] == [1000, 1, 333]
    expected = speech_like(1000, 0)
    np.testing.assert_array_equal(dump.read("u00"), expected)
    np.testing.assert_array_equal(dump.read("u00", 10, 20), expected[10:20])
    np.testing.assert_array_equal(dump.read("u00", 990, 5000), expected[990:])


def test_histogram_is_exact(make_dump):
    dump = open_dump(make_dump("train", [1000, 500], jobs=2))
    samples = np.concatenate([dump.read(utterance) for utterance in dump.records]).astype(int)
    np.testing.assert_array_equal(dump.histogram, np.bincount(samples + 32768, minlength=65536))


def test_contents_do_not_depend_on_the_number_of_jobs(make_dump):
    one, three = (
        open_dump(make_dump("one", [700, 80, 9, 400])),
        open_dump(make_dump("three", [700, 80, 9, 400], jobs=3)),
    )
    assert one.info["data_hash"] == three.info["data_hash"]
    other = open_dump(make_dump("other", [700, 80, 9, 400], seed=1))
    assert one.info["data_hash"] != other.info["data_hash"]


def test_kaldiio_reads_the_archives(make_dump):
    directory = make_dump("train", [1000, 333])
    loaded = kaldiio.load_scp(str(directory / "pcm.scp"))
    rate, samples = loaded["u01"]
    assert rate == 16000
    np.testing.assert_array_equal(samples, open_dump(directory).read("u01"))


def test_two_bytes_per_frame_and_a_header(make_dump):
    directory = make_dump("train", [1000, 333])
    assert (directory / "pcm.1.ark").stat().st_size == 2 * 1333 + 2 * (44 + len("u00 "))


def _cut(directory):
    archive = directory / "pcm.1.ark"
    archive.write_bytes(archive.read_bytes()[:-10])
    return "u01", r"pcm\.1\.ark:2052: u01: ends after 656 of 666 bytes"


def _flip(directory):
    archive = directory / "pcm.1.ark"
    data = bytearray(archive.read_bytes())
    data[-100] ^= 1
    archive.write_bytes(data)
    return "u01", "u01: damaged: the SHA-256 of its frames differs from when they were written"


def _shift(directory):
    scp = directory / "pcm.scp"
    lines = scp.read_text().splitlines()
    scp.write_text(lines[0] + "\n" + lines[1] + "1\n")
    return "u01", "no record of u01"


def _lengthen(directory):
    table = directory / "utt2num_samples"
    table.write_text("u00 1000\nu01 330\n")
    return "u01", "header says 333 frames at 16000 Hz, the index 330"


def _swap(directory):
    scp = directory / "pcm.scp"
    a, b = (line.split(" ", 1)[1] for line in scp.read_text().splitlines())
    scp.write_text(f"u00 {b}\nu01 {a}\n")
    return "u00", "no record of u00"


def _delete(directory):
    (directory / "pcm.1.ark").unlink()
    return "u00", "No such file"


@pytest.mark.parametrize("damage", [_cut, _flip, _shift, _lengthen, _swap, _delete])
def test_an_archive_that_does_not_match_its_index_is_refused(make_dump, damage):
    directory = make_dump("train", [1000, 333])
    utterance, message = damage(directory)
    with pytest.raises(UserError, match=message) as error:
        open_dump(directory).read(utterance)
    part = directory / "shard.1.json"
    assert f"remove {part} and run stage 2 (dumps) again" in str(error.value) and "\n" not in str(error.value)


def test_the_archive_of_another_dump_is_refused(make_dump):
    directory, other = make_dump("train", [1000, 333]), make_dump("other", [1000, 333], seed=3)
    shutil.copy(other / "pcm.1.ark", directory)
    with pytest.raises(UserError, match=r"pcm\.1\.ark:4: u00: damaged: the SHA-256"):
        open_dump(directory).read("u00", 0, 10)


def test_parts_that_are_not_of_this_dump_are_no_proof(make_dump):
    directory, other = make_dump("train", [100, 100]), make_dump("other", [100, 100], seed=3)
    shutil.copy(other / "shard.1.json", directory)
    with pytest.raises(UserError, match=f"{directory}/info.json: does not match shard.*; remove {directory} and"):
        open_dump(directory).read("u00")


def test_frames_are_hashed_once(make_dump, monkeypatch):
    dump = open_dump(make_dump("train", [1000]))
    dump.read("u00", 3, 4)
    monkeypatch.setattr(dumps.hashlib, "sha256", None)
    assert len(dump.read("u00", 10, 30)) == 20


def test_an_index_line_without_offset_names_its_line(make_dump):
    directory = make_dump("train", [100, 100])
    scp = directory / "pcm.scp"
    scp.write_text(scp.read_text().replace("u01 ", "u01 x").rsplit(":", 1)[0] + "\n")
    with pytest.raises(UserError, match=r"pcm.scp:2: u01"):
        open_dump(directory)


def test_a_pickled_histogram_is_not_loaded(make_dump):
    directory = make_dump("train", [100])
    np.save(directory / "histogram.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="not a histogram"):
        _ = open_dump(directory).histogram


def test_full_disk_leaves_the_previous_dump_and_a_rerun_finishes(make_dump, speech_like):
    directory = make_dump("train", [1000, 333])
    before = (directory / "pcm.1.ark").read_bytes()
    script = (
        "import resource, sys, signal\n"
        "from pathlib import Path\n"
        "from speechlvm.data.dumps.pcm import write\n"
        "from speechlvm.utils.errors import UserError\n"
        "import numpy as np\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "try:\n"
        "    write(Path(sys.argv[1]), 1, [('u00', [np.ones(9000, np.int16)])], 16000, {})\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(directory)], capture_output=True, text=True)
    assert "pcm.1.ark" in result.stdout and "bytes are free" in result.stdout, result.stderr
    assert (directory / "pcm.1.ark").read_bytes() == before
    assert not list(directory.glob(".*.tmp"))
    pcm.write(directory, 1, [("u00", [np.ones(9000, np.int16)])], 16000, {})
    pcm.merge(directory, 1, "data")
    assert open_dump(directory).frames == 9000


def test_merge_needs_every_part(make_dump):
    directory = make_dump("train", [100, 100], jobs=2)
    (directory / "shard.2.json").unlink()
    with pytest.raises(UserError, match=r"shard\.2\.json"):
        pcm.merge(directory, 2, "data")


def test_parts_of_a_run_with_more_jobs_are_removed(make_dump):
    directory = make_dump("train", [100, 100, 100], jobs=3)
    make_dump("train", [100, 100, 100], jobs=1)
    assert sorted(path.name for path in directory.glob("pcm.*.ark")) == ["pcm.1.ark"]


def test_a_copied_dump_reads_its_own_archives(make_dump, tmp_path):
    original = make_dump("train", [500])
    expected = open_dump(original).read("u00")
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    make_dump("train", [500], seed=9)
    np.testing.assert_array_equal(open_dump(copy).read("u00"), expected)
