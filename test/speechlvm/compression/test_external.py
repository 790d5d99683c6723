"""Codecs that are programs: what is counted, what is compared, and what is said if something is wrong."""

import json
import math
import shlex
import shutil
import sys

import numpy as np
import pytest
from programs import call

from speechlvm.bin import baseline, codecs
from speechlvm.compression.external import Commands, ExternalCodec, load_codecs
from speechlvm.utils.errors import ConfigError, UserError

COPY = {"encode": "cp {wav} {file}", "decode": "cp {file} {wav}"}


def codec(**commands):
    return ExternalCodec("squeeze", Commands(**{**COPY, **commands}), 16000)


@pytest.fixture
def python(tmp_path):
    """python(text): a command that runs a Python program, in a path with a blank."""

    def write(text):
        path = tmp_path / "a program.py"
        path.write_text(text)
        return f"{shlex.quote(sys.executable)} {shlex.quote(str(path))}"

    return write


@pytest.fixture
def listed(tmp_path):
    """listed(text): a codecs.yaml."""

    def write(text):
        path = tmp_path / "codecs.yaml"
        path.write_text(text)
        return path

    return write


def test_all_bytes_are_counted(speech_like):
    pcm = speech_like(500, 0)
    assert codec().bytes(pcm) == 44 + 2 * 500
    assert codec().nats(pcm) == -8 * math.log(2) * 1044
    assert codec(encode="cp {wav} '{file}.1'", decode="cp {file}.1 {wav}").bytes(pcm) == 1044
    two = codec(encode="split -n 2 {wav} {file}.", decode="dd status=none if={file}.aa of={wav}")
    with pytest.raises(UserError, match="gives other samples"):  # of two files it takes one
        two.bytes(pcm)
    compressed = codec(encode="gzip {wav}", decode="gunzip {wav}.gz").bytes(np.zeros(5000, np.int16))
    assert 0 < compressed < 200


def test_one_sample_that_differs_is_an_error(speech_like, python):
    change = python(
        "import sys\ndata = bytearray(open(sys.argv[1], 'rb').read())\ndata[-1] ^= 1\n"
        "open(sys.argv[2], 'wb').write(data)"
    )
    with pytest.raises(UserError, match=r"^squeeze: `.*` gives other samples than were encoded; expected a lossless"):
        codec(decode=f"{change} {{file}} {{wav}}").bytes(speech_like(500, 0))


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        ({"encode": "nonesuch {wav}"}, "squeeze: the program nonesuch is not installed on this machine"),
        ({"encode": "ls nowhere"}, r"squeeze: `ls nowhere` failed with status 2: .*ls: .*nowhere"),
        ({"encode": "false"}, "squeeze: `false` failed with status 1$"),
        ({"decode": "true"}, r"squeeze: `true` wrote no WAV file to \{wav\}"),  # the original is gone
        ({"decode": "tar -cf {wav} {file}"}, "squeeze: `tar .*` wrote no WAV file"),
    ],
)
def test_what_fails_is_one_line(speech_like, commands, message):
    with pytest.raises(UserError, match=message) as caught:
        codec(**commands).bytes(speech_like(500, 0))
    assert "\n" not in str(caught.value)


def test_no_shell_sees_commands(speech_like, tmp_path):
    mark = tmp_path / "made"
    with pytest.raises(UserError, match="failed with status"):
        codec(encode=f"cp {{wav}} {{file}}; touch {mark}").bytes(speech_like(500, 0))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("squeeze: {encode: a}", "codecs.yaml: squeeze: decode: missing"),
        ("squeeze: {encode: a, decode: ''}", "codecs.yaml: squeeze: decode: expected a command; found ''"),
        ('squeeze: {encode: a, decode: "b \'c"}', "codecs.yaml: squeeze: decode: no closing quotation"),
        ("squeeze: {encode: a, decode: b, speed: c}", "codecs.yaml: squeeze: speed: unknown key"),
        ("a b: {encode: a, decode: b}", "codecs.yaml: codec 'a b': expected letters"),
        ("../a: {encode: a, decode: b}", "codecs.yaml: codec '../a': expected letters"),
        ("squeeze: cp", "codecs.yaml: squeeze: settings: "),
    ],
)
def test_malformed_lists_are_refused(listed, text, message):
    with pytest.raises(ConfigError, match=message):
        load_codecs(listed(text))


def test_the_list_says_what_is_not_installed(listed):
    done = call(codecs.main, listed("a: {encode: cp a, decode: cp b}\nb: {encode: cp a, decode: nonesuch b}"))
    assert (done.returncode, done.stdout) == (0, "a\nb nonesuch\n")
    assert call(codecs.main, listed("{}")).stdout == ""
    done = call(codecs.main, listed("flac: {encode: a, decode: b}"))
    assert done.returncode == 2 and "flac: a reference that is always scored; choose another name" in done.stderr


def test_a_codec_is_scored_like_a_baseline(make_dump, listed, python, tmp_path):
    training, test = make_dump("train", [100]), make_dump("test", [300, 200, 700])
    version = python("print('squeeze 1.0')\nprint('and more')")
    path = listed(json.dumps({"squeeze": {**COPY, "version": version}}))  # JSON is YAML
    out = tmp_path / "exp" / "train" / "squeeze" / "score_test"
    words = ("--name", "squeeze", "--codecs", path, "--train", training, "--dump", test, "--out", out, "--nj", 2)
    for step in (("--job", 2), ("--job", 1), ("--merge",)):
        done = call(baseline.main, *words, *step)
        assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    assert result["bits_per_frame"] == pytest.approx(8 * (2 * 1200 + 3 * 44) / 1200)
    found = [result[key] for key in ("model", "system", "bound", "coding", "unit", "parameters", "utterances")]
    assert found == ["squeeze", "squeeze", "code-length", "linear", "pmf", 0, 3]
    inputs = json.loads((out / "done.json").read_text())
    assert inputs["version"] == "squeeze 1.0" and inputs["commands"]["encode"] == COPY["encode"]
    assert call(baseline.main, *words, "--check").returncode == 0
    python("print('squeeze 2.0')")
    assert call(baseline.main, *words, "--check").returncode == 1

    done = call(baseline.main, *words[:1], "other", *words[2:])
    assert (done.returncode, done.stderr) == (2, "error: --name 'other': expected one of squeeze\n")
    path.write_text(json.dumps({"squeeze": {"encode": COPY["encode"], "decode": "true"}}))
    done = call(baseline.main, *words)
    assert (done.returncode, done.stderr) == (1, "error: u00: squeeze: `true` wrote no WAV file to {wav}\n")


@pytest.mark.skipif(not shutil.which("wavpack"), reason="needs WavPack (Debian package wavpack)")
@pytest.mark.parametrize(("frames", "least", "most"), [(1, 100, 200), (100, 200, 300), (20_000, 20_000, 30_000)])
def test_wavpack_as_it_is_called_by_default(speech_like, frames, least, most, request):
    [commands] = load_codecs(request.config.rootpath / "utils/conf/codecs.yaml").values()
    wavpack = ExternalCodec("wavpack", commands, 16000)
    assert wavpack.version().startswith("wavpack ")
    assert least < wavpack.bytes(speech_like(frames, 0)) < most
    extremes = np.array([-32768, 32767] * 50, np.int16)
    assert wavpack.bytes(extremes) < 500
