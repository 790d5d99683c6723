"""Coding with latent variable models: round trips, net bits beside the bound, and the initial bits that come back."""

import subprocess
import sys

import numpy as np
import pytest
from programs import call

from speechlvm.bin import decompress
from speechlvm.compression import bits_back, codec
from speechlvm.compression.source import source_of_dump
from speechlvm.data.audio import read_audio
from speechlvm.data.dumps import open_dump
from speechlvm.models import MODELS, model_class
from speechlvm.models.base import LatentModel
from speechlvm.scoring.score import score_dump

SYSTEMS = ("vrnn", "cwvae_l1", "cwvae_l3", "srnn", "srnn_filtering", "zforcing", "stochastic_wavenet", "stcn")
LENGTHS = [1300, 700, 64, 1, 333, 960, 1200]
LANES = 2


@pytest.fixture(scope="module")
def dump(make_dump_in, tmp_path_factory):
    return make_dump_in(tmp_path_factory.mktemp("set") / "set", LENGTHS, seed=90)


def test_every_model_with_latents_is_here(systems):
    names = {systems[system][0] for system in SYSTEMS}
    assert names == {name for name in MODELS if issubclass(model_class(name), LatentModel)}


def from_the_state_before(follow):
    """`follow` that insists on the state after all chunks before; without it, decoders would agree all the same."""

    def checked(inputs, lengths, latents, *, state, **options):
        before = 0 if state is None else int(state["frames"][0])
        assert before + int(lengths.max()) in sorted(LENGTHS, reverse=True)[::LANES]
        return follow(inputs, lengths, latents, state=state, **options)

    return checked


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_bit_comes_back_at_the_cost_of_the_bound(trained, dump, system, tmp_path, monkeypatch):
    path, chains, of_bytes = tmp_path / "file", [], bits_back._Chain.of_bytes
    monkeypatch.setattr(bits_back._Chain, "of_bytes", lambda stream: chains.append(of_bytes(stream)) or chains[0])
    experiment, source = codec.load_codec(trained(system)), source_of_dump(dump)
    with monkeypatch.context() as patched:
        patched.setattr(experiment.model, "follow", from_the_state_before(experiment.model.follow))
        sizes = codec.compress(experiment, source, path, LANES, lambda frames: None)
    assert sizes.utterances == len(LENGTHS) and sizes.frames == sum(LENGTHS)
    done = call(decompress.main, "--exp", trained(system), path, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for name in source.frames:
        np.testing.assert_array_equal(read_audio(tmp_path / "out" / f"{name}.wav"), source.read(name))
    scored = -sum(score.nats for score in score_dump(experiment.model, experiment.observation, open_dump(dump)))
    assert sizes.model_bits == pytest.approx(scored / np.log(2), rel=0.01)  # other draws of the latents
    assert sizes.table_bits == pytest.approx(sizes.model_bits, rel=0.01)
    assert sizes.stream_bits - sizes.table_bits < (32 + 24 + 2) * bits_back.STACKS  # sizes, and ends of stacks
    left = [chains[0]._stacks.to_bytes(stack) for stack in range(bits_back.STACKS)]
    assert 8 * sum(map(len, left)) == sizes.initial_bits
    assert sizes.stream_bits + sizes.initial_bits + sizes.header_bits == 8 * sizes.file_bytes
    heads = np.array([int.from_bytes(stack[:8], "little") for stack in left], dtype=np.uint64)
    np.testing.assert_array_equal(heads, bits_back._InitialBits().stacks().heads)
    if system in ("vrnn", "cwvae_l3"):  # the last of the chain, in another process
        words = ["--exp", trained(system), path, "--out", tmp_path / "one", "--utterance", "u03"]
        command = [sys.executable, "-m", "speechlvm.bin.decompress", *map(str, words)]
        assert subprocess.run(command, timeout=1200).returncode == 0
        assert [file.name for file in (tmp_path / "one").glob("*")] == ["u03.wav"]
        np.testing.assert_array_equal(read_audio(tmp_path / "one" / "u03.wav"), source.read("u03"))
