import pytest
import torch

from speechlvm.data.kaldi.directory import DataDirectory, Interval
from speechlvm.latents.probes.tasks import SETS, build_task, error_rate, phones_at_steps, phones_in_order
from speechlvm.latents.probes.units import train_units
from speechlvm.utils.errors import UserError


def segments(text):
    """'h# 300 aa 700': labels and where they end."""
    words = text.split()
    ends = [int(word) for word in words[1::2]]
    return [Interval(a, b, label) for label, a, b in zip(words[::2], [0, *ends], ends, strict=False)]


def task(name, phones=(), text=(), frames=2560, units=None, **changed):
    """A task whose three sets have the same labels."""
    labels = {s: (changed.get(s, phones), text) for s in SETS}
    data = {
        s: DataDirectory(
            utt2spk={},
            num_samples={f"{s}{i}": frames for i in range(9)},
            phones={f"{s}{i}": value for i, value in enumerate(mine)},
            text={f"{s}{i}": value for i, value in enumerate(words)},
        )
        for s, (mine, words) in labels.items()
    }
    utterances = {s: [f"{s}{i}" for i in range(max(len(labels[s][0]), len(labels[s][1])))] for s in SETS}
    return build_task(name, data, utterances, 256, units)


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("h# 10 aa 20 b 30 h# 40", "sil aa b sil"),
        ("h# 10 epi 20 tcl 30 t 40 ao 50 zh 60", "sil t aa sh"),  # silences in a row are one
        ("aa 10 ao 20 q 30 aa 40", "aa aa aa"),  # phones in a row are not; q is left out
        ("pau 10 q 20 pau 30", "sil"),
    ],
)
def test_phones_in_order(text, phones):
    assert phones_in_order(segments(text)) == phones.split()


def test_phones_at_the_middle_of_each_step():
    known = [Interval(100, 384, "h#"), Interval(384, 700, "ax"), Interval(700, 1000, "q"), Interval(1100, 1300, "s")]
    # middles: 128, 384 (the first frame of ax), 640, 896 (q is left out), 1152, 1408 (past the end)
    assert phones_at_steps(known, 1500, 256) == ["sil", "ah", "ah", "", "s", ""]


def test_error_rate_by_hand():
    # kitten -> sitting: 3; "" -> ab: 2 insertions; abc -> "": 3 deletions; in 6 + 0 + 3 tokens
    assert error_rate(["kitten", "", "abc"], ["sitting", "ab", ""]) == (3 + 2 + 3) / 9
    assert error_rate([["a", "b"]], [["a", "b"]]) == 0.0


def test_units_and_words_by_hand():
    text = ["ab ab cd", "ab"]
    known = task("units", text=text, units=train_units(text, 6))
    scores = known.score([["▁", "a", "b", "▁", "c"], ["▁", "d"]], [["▁", "a", "▁", "b", "▁", "c"], ["▁", "d"]])
    assert scores == {"unit_error_rate": 1 / 7, "word_error_rate": 2 / 3}  # "ab c d" decoded as "a b c d"


def test_greedy_decoding_joins_what_no_blank_divides():
    known = task("phones", [segments("aa 512 b 1024")])
    best = torch.tensor([[1, 1, 0, 1, 2, 2, 0, 0, 2], [0, 0, 2, 1, 0, 0, 1, 1, 1]])
    outputs = torch.nn.functional.one_hot(best, 3).float()
    assert known.decode(outputs, [9, 3]) == [["aa", "aa", "b", "b"], ["b"]]


def test_ctc_loss_is_minus_the_logarithm_of_all_paths():
    known = task("phones", [segments("aa 512 b 1024")])
    outputs = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(0))
    p = outputs.softmax(-1)[0]
    # a b over three steps: aab, abb, -ab, a-b, ab-
    paths = [(1, 1, 2), (1, 2, 2), (0, 1, 2), (1, 0, 2), (1, 2, 0)]
    total = sum(p[0, a] * p[1, b] * p[2, c] for a, b, c in paths)
    loss = known.loss(outputs, torch.tensor([3]), [["aa", "b"]])
    assert loss.item() == pytest.approx(-total.log().item() / 2, rel=1e-5)


def test_steps_without_label_count_nowhere():
    known = task("frames", [[Interval(0, 512, "aa"), Interval(512, 1024, "q"), Interval(1024, 1280, "s")]], frames=1536)
    assert known.references["test"]["test0"] == ["aa", "aa", "", "", "s", ""]
    assert known.score([["aa", "", "s", ""]], [["aa", "aa", "aa", "s"]]) == {"accuracy": 0.5}
    assert known.alphabet == ["aa", "s"] and known.chance() == {"accuracy": 2 / 3}
    outputs = torch.zeros(1, 8, 2)  # padded
    outputs[0, :, 0] = 5.0
    even = known.loss(outputs, torch.tensor([6]), [["aa", "aa", "", "", "aa", ""]])
    assert even.item() == pytest.approx(torch.log1p(torch.exp(torch.tensor(-5.0))).item(), rel=1e-5)


def test_utterances_too_short_for_their_labels_are_counted():
    # 2 560 frames: ten steps of the clock, five of a recogniser
    fits, same, long = segments("aa 9 b 19 s 29 t 39 d 49"), segments("aa 9 ao 19 aa 29 d 39"), segments("aa 9 " * 6)
    known = task("phones", [fits, same, long])
    assert known.too_short == {s: [f"{s}1", f"{s}2"] for s in SETS}  # aa aa aa d needs two blanks
    assert known.trainable == ["train0"]
    assert set(known.references["test"]) == {"test0", "test1", "test2"}  # as errors


def test_loss_of_what_fits_exactly_is_finite():
    known = task("phones", [segments("aa 9 b 19 s 29 t 39 d 49"), segments("aa 9 ao 19 b 29 d 39")])
    assert known.too_short["train"] == []
    loss = known.loss(
        torch.zeros(2, 5, 6), torch.tensor([5, 5]), [known.references["train"][u] for u in known.trainable]
    )
    assert torch.isfinite(loss)


def test_no_utterance_that_can_be_learned():
    with pytest.raises(UserError, match=r"probe 'phones': no utterance of the train set .* \(train0, ...: too short\)"):
        task("phones", [segments("aa 9 " * 9)])
    with pytest.raises(UserError, match="probe 'phones': no utterance of the test set has labels; prepare"):
        task("phones", [segments("aa 9")], test=[])


def test_a_batch_without_labels_costs_nothing():
    known = task("phones", [segments("aa 900")])
    assert 0 < known.loss(torch.zeros(1, 5, 2), torch.tensor([5]), [[]]).item() < 10  # blanks only
    known = task("frames", [segments("aa 900")])
    assert known.loss(torch.zeros(1, 3, 1), torch.tensor([3]), [["", "", ""]]).item() == 0.0


def test_utterances_without_labels_are_named():
    known = task("phones", [segments("aa 900")], text=["a", "b"])
    assert known.unlabelled["valid"] == ["valid1"]
