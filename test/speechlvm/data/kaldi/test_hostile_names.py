"""Names that somebody else wrote, in dumps and stores, never lead out of the directory that files are written to."""

import json
import re

import numpy as np
import pytest

from speechlvm.bin.cli import run_main
from speechlvm.data.dumps import open_dump
from speechlvm.data.kaldi.matrices import read_vectors
from speechlvm.latents.store import Representation, Store, merge
from speechlvm.latents.store import write as write_store
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import mark_done

NAMES = ["../up", "/etc/x", "-rf", "$(touch_canary)", "*", "é", "a\x1b[2J"]


@pytest.mark.parametrize("name", NAMES)
def test_utterances_of_dumps(make_dump, name):
    directory = make_dump("set", [30, 20])
    for file in ("pcm.scp", "utt2num_samples"):
        text = (directory / file).read_text()
        (directory / file).write_bytes(re.sub("(?m)^u00 ", lambda _: f"{name} ", text).encode())
    with pytest.raises(UserError, match=rf"^{directory}/pcm\.scp:1: unsafe id '") as caught:
        open_dump(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_representations_of_stores(tmp_path, name):
    store = tmp_path / "store"
    z = Representation("z", "latent", 4, 2.0, 1)
    write_store(store, 1, [("u", {"z": {"mean": np.zeros((2, 1), "f4")}})], [z], {})
    merge(store, 1, {"source": "m", "set": "test", "rate_hz": 16000, "data_hash": "0"})
    mark_done(store, {})
    assert Store(store).utterances == ["u"]
    info = json.loads((store / "info.json").read_text())
    info["representations"][0]["name"] = name
    (store / "info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="info.json: damaged .*a representation called") as caught:
        Store(store)
    said = str(caught.value).replace(str(tmp_path), "")
    assert said.isascii() and said.isprintable()


@pytest.mark.parametrize("place", ["touch canary |:0", "|touch canary:0", "touch canary |", "-:0", "canary:0"])
def test_places_of_vectors_are_files(tmp_path, monkeypatch, place):
    """kaldiio would run the first ones, and read standard input for '-'."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        read_vectors(place, "u")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["[]", "1", "null", '{"kind": []}', '{"kind": "pcm16"}', "{}"])
def test_what_dumps_say_of_themselves(make_dump, text):
    directory = make_dump("set", [30])
    (directory / "info.json").write_text(text)
    with pytest.raises(UserError, match=rf"^{directory}/info\.json: damaged"):
        open_dump(directory)


def test_messages_do_not_command_the_terminal(capsys):
    def main():
        raise UserError("a\x1b[2J\x07b\nc\u202ed\udc80 \u00e9.wav: no")

    with pytest.raises(SystemExit):
        run_main(main)
    assert capsys.readouterr().err == "error: a\\x1b[2J\\x07b c\\u202ed\\udc80 \u00e9.wav: no\n"
