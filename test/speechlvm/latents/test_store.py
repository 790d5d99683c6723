import numpy as np
import pytest
from imitations.representations import make

from speechlvm.latents.store import Representation, Store, merge, open_stores
from speechlvm.latents.store import write as write_store
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import mark_done

Z1 = Representation("z1", "latent", 64, 32.0, 3, ("mean", "kl"))
H = Representation("h", "hidden", 256, 128.0, 2)
INFO = {"source": "m", "set": "test", "rate_hz": 16000, "data_hash": "0"}


def values(seed, steps=8):
    draws = np.random.default_rng(seed)
    normal = draws.standard_normal
    return {
        "z1": {"mean": normal((steps, 3)).astype("f4"), "kl": normal((steps, 3)).astype("f4")},
        "h": {"mean": normal((steps // 4, 2)).astype("f4")},
    }


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.fixture
def store(tmp_path):
    write_store(tmp_path / "s", 1, [("b", values(1)), ("a", values(0))], [Z1, H], {"jobs": 2})
    write_store(tmp_path / "s", 2, [("c", values(2))], [Z1, H], {"jobs": 2})
    merge(tmp_path / "s", 2, INFO)
    mark_done(tmp_path / "s", {})
    return tmp_path / "s"


def assert_holds(store, expected):
    opened = Store(store)
    assert opened.utterances == sorted(expected)
    for utterance, of in expected.items():
        for name, statistics in of.items():
            for statistic, array in statistics.items():
                np.testing.assert_array_equal(opened.read(name, utterance, statistic), array)


def test_reads_what_was_written_also_elsewhere(store, tmp_path):
    expected = {utterance: values(seed) for seed, utterance in enumerate("abc")}
    assert_holds(store, expected)
    assert Store(store).representations == {"z1": Z1, "h": H} and Store(store).step_rate_hz("h") == 62.5
    store.rename(tmp_path / "moved")
    assert_holds(tmp_path / "moved", expected)


def test_parts_of_an_utterance_are_joined(store):
    whole = values(7, 24)
    parts = [
        ("b", {"z1": {s: array[8 * i : 8 * i + 8] for s, array in whole["z1"].items()},
               "h": {"mean": whole["h"]["mean"][2 * i : 2 * i + 2]}})
        for i in range(3)
    ]  # fmt: skip
    write_store(store, 1, [("a", values(0)), *parts, ("d", values(3))], [Z1, H], {"jobs": 2})
    merge(store, 2, INFO)
    assert_holds(store, {"a": values(0), "b": whole, "c": values(2), "d": values(3)})


def test_fewer_jobs_and_representations_leave_nothing_of_more(store):
    for name in ("pcm.1.ark", "notes_mean"):  # not of a store
        (store / name).touch()
    z1 = Representation("z1", "latent", 64, 32.0, 3)
    write_store(store, 1, [("a", values(0))], [z1], {"jobs": 1})
    merge(store, 1, INFO)
    kept = {"z1_mean.1.ark", "z1_mean.scp", "shard.1.json", "info.json", "done.json", "pcm.1.ark", "notes_mean"}
    assert {path.name for path in store.iterdir()} == kept
    assert_holds(store, {"a": {"z1": {"mean": values(0)["z1"]["mean"]}}})


def test_a_job_without_utterances_is_no_error(tmp_path):
    write_store(tmp_path, 1, [], [Z1], {})
    write_store(tmp_path, 2, [("a", values(0))], [Z1], {})
    assert merge(tmp_path, 2, INFO)["utterances"] == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: (s / "done.json").unlink(), r"done.json: missing; remove .*/s and run stage 6"),
        (lambda s: (s / "info.json").write_text('{"kind": "pcm16"}'), "info.json: damaged"),
        (lambda s: (s / "info.json").write_text('{"kind"'), r"info.json: not valid JSON .*; remove .*/s and run"),
        (lambda s: (s / "info.json").unlink(), "info.json: missing; remove .*/s and run stage 6"),
        (lambda s: edit(s / "info.json", '"hop_frames": 64', '"hop_frames": 0'), "info.json: damaged .*hop_frames"),
        (lambda s: (s / "z1_mean.scp").unlink(), "z1_mean.scp: cannot be read"),
        (
            lambda s: (s / "z1_mean.scp").write_text("a x.ark:2\n"),
            "z1_mean.scp: 1 utterances, info.json says 3; remove",
        ),
    ],
)
def test_damage_is_named(store, spoil, message):
    spoil(store)
    with pytest.raises(UserError, match=message):
        Store(store)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: (s / "h_mean.2.ark").write_bytes(b"c \0BFM"), "no float32 matrix"),
        (lambda s: (s / "h_mean.2.ark").write_bytes(b"d \0BFM"), "no record of c"),
        (
            lambda s: (s / "h_mean.2.ark").write_bytes((s / "h_mean.2.ark").read_bytes()[:-1]),
            "ends after 15 of 16 bytes",
        ),
        (lambda s: (s / "h_mean.2.ark").unlink(), "No such file or directory"),
        (lambda s: edit(s / "info.json", '"dimensions": 2', '"dimensions": 5'), "c has 2 dimensions, info.json says 5"),
    ],
)
def test_a_damaged_archive_is_to_be_made_again(store, spoil, message):
    spoil(store)
    with pytest.raises(UserError, match=message + r".*; remove .* and run stage 6 \(latents\) again"):
        Store(store).read("h", "c")


VALUES = np.arange(12.0).reshape(6, 2)


@pytest.mark.parametrize(
    ("values", "source", "made", "message"),
    [
        ({"b_1": {"z1": VALUES}}, "other", {}, "b/latents: other, 8000 Hz, z1 .*a/latents: model, 8000 Hz, z1"),
        ({"b_1": {"z2": VALUES}}, "model", {}, "b/latents: .* z2 .* only sets of one model"),
        ({"b_1": {"z1": VALUES[:, :1]}}, "model", {}, r"b/latents: .* z1 \(D=1, hop 64 frames\)"),
        ({"a_1": {"z1": VALUES}}, "model", {}, "b/latents: a_1 is in .*a/latents, too"),
        # trained anew under the same name, or other samples
        ({"b_1": {"z1": VALUES}}, "model", {"model": "2", "num_samples": 9}, "b/latents: made with another training"),
        ({"b_1": {"z1": VALUES}}, "model", {"names": ["z1"], "seed": 1}, "with another names, seed than .*; run stage"),
    ],
)
def test_sets_that_do_not_belong_together(tmp_path, values, source, made, message):
    known = {"model": "1", "num_samples": 100, "names": None, "seed": 0, "statistics": ["kl", "mean"]}
    stores = [make(tmp_path, "a", {"a_1": {"z1": VALUES}})[0], make(tmp_path, "b", values, source=source)[0]]
    mark_done(stores[0], known)
    mark_done(stores[1], known | made)
    with pytest.raises(UserError, match=message):
        open_stores(stores)


def test_statistics_may_differ_between_sets(tmp_path):
    stores = [make(tmp_path, name, {f"{name}_1": {"z1": VALUES}})[0] for name in "ab"]
    edit(stores[1] / "info.json", '"mean"', '"mean", "kl"')
    mark_done(stores[1], {"statistics": ["kl", "mean"]})
    assert [store.utterances for store in open_stores(stores)] == [["a_1"], ["b_1"]]


def test_what_is_not_there_is_named(store):
    with pytest.raises(UserError, match=r"no std of 'z1'; expected: z1 \(mean kl\), h \(mean\)"):
        Store(store).read("z1", "a", "std")
    with pytest.raises(UserError, match="d: not in z1_mean.scp"):
        Store(store).read("z1", "d")


@pytest.mark.parametrize(
    ("array", "message"), [(np.full((2, 3), np.nan), "not finite"), (np.zeros((2, 4)), "expected")]
)
def test_what_cannot_be_stored_is_refused(tmp_path, array, message):
    with pytest.raises(UserError, match=message):
        write_store(tmp_path, 1, [("a", {"z1": {"mean": array, "kl": array}})], [Z1], {})
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0, 64), slice(0, 1)),  # one centre, at 32
        ((32, 33), slice(0, 1)),
        ((33, 97), slice(1, 2)),  # 96
        ((33, 96), slice(1, 2)),  # none within: the middle is 64.5, 1 is nearer
        ((0, 640), slice(0, 8)),  # past the end
        ((33, 34), slice(0, 1)),
        ((4000, 4100), slice(7, 8)),
        ((0, 1), slice(0, 1)),
    ],
)
def test_steps_of_a_span(span, expected):
    assert Z1.steps_within(*span, steps=8) == expected


def test_steps_of_spans_that_share_no_frame_share_no_step():
    edges = [0, 100, 230, 300, 512]
    taken = [s for a, b in zip(edges, edges[1:], strict=False) for s in range(8)[Z1.steps_within(a, b, 8)]]
    assert taken == list(range(8))
