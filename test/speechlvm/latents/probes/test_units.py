import pytest

from speechlvm.latents.probes.units import load_units, train_units, units_of, words_from, words_of
from speechlvm.utils.errors import ConfigError, UserError

TEXT = ["Don't ask me to carry an oily rag like that.", "She had your dark suit in greasy wash water all year!"] * 3


@pytest.mark.parametrize(
    ("text", "words"),
    [("Don't ask, me!", ["don't", "ask", "me"]), ("a twenty-two  b_c", ["a", "twenty", "two", "b", "c"]), ("...", [])],
)
def test_words(text, words):
    assert words_of(text) == words


def test_units_spell_the_words():
    processor = load_units(train_units(TEXT, 40))
    assert processor.get_piece_size() == 40
    for text in TEXT:
        assert words_from(units_of(processor, text)) == words_of(text)
    assert words_from(units_of(processor, "Zoë has a QUARTZ ring")) == ["zoë", "has", "a", "quartz", "ring"]


def test_the_same_text_gives_the_same_model():
    assert train_units(TEXT, 40) == train_units(TEXT, 40)
    assert train_units(TEXT, 40) != train_units(TEXT[:1], 40)


def test_without_a_vocabulary_the_nearest_to_the_usual_one():
    def pieces(texts):
        return load_units(train_units(texts, None)).get_piece_size()

    assert pieces(TEXT) == 100 and pieces(["a"]) == 4 and pieces(TEXT[:1]) < 100
    assert pieces([" ".join(map(chr, range(0x4E00, 0x4E00 + 300)))] * 9) == 302
    assert pieces([f"{a}{b}{c}" for a in "abcd" for b in "efgh" for c in "ijklmn"]) == 100


@pytest.mark.parametrize("text", [TEXT, ["1 2 3", "4 5"], ["words"]], ids=["sentences", "numbers", "one word"])
def test_every_vocabulary_of_the_range_is_supported_and_no_other(text):
    with pytest.raises(ConfigError) as refusal:
        train_units(text, 500)
    message = str(refusal.value)
    assert message.startswith("vocabulary 500: this text supports ")
    least, most = (int(word) for word in message.split() if word.isdigit())
    assert least == len(set("".join(text).lower()) - set(" .!")) + 2  # also blanks and <unk>
    for vocabulary in range(least, most + 1):
        assert load_units(train_units(text, vocabulary)).get_piece_size() == vocabulary
    for vocabulary in (1, least - 1, most + 1):
        with pytest.raises(ConfigError, match=f"vocabulary {vocabulary}: this text supports {least} to {most}"):
            train_units(text, vocabulary)


def test_a_text_of_one_letter():
    assert load_units(train_units(["a"], 3)).get_piece_size() == 3
    with pytest.raises(ConfigError, match="vocabulary 30: this text supports 3 to 4"):
        train_units(["a a a", "a"], 30)


def test_long_lines_are_not_left_out():
    processor = load_units(train_units(["abc " * 5000 + "z", "abc"], 6))
    assert processor.piece_to_id("z") != processor.unk_id()


def test_a_text_without_words():
    with pytest.raises(UserError, match="no words"):
        train_units(["...", ""], 30)
