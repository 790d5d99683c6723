"""TIMIT's 61 phone codes, their manner of articulation, and the usual folding into 39 classes; Russian phones.

Manners follow the classes of the corpus's own documentation (PHONCODE.DOC). The folding is that of K.-F. Lee and
H.-W. Hon, "Speaker-independent phone recognition using hidden Markov models", IEEE Trans. ASSP 37 (1989): allophones
join their phoneme, closures join silence, and the glottal stop q is left out. Labels of other corpora are unchanged.

Russian phones are those of the voice festvox-ru: doubled letters are stressed vowels or palatalised consonants. Almost
half of the codes are TIMIT's with other meanings, so they have a prefix, and folding leaves them as they are.
"""

from __future__ import annotations

MANNERS = {
    "stop": "b d g p t k dx q",
    "closure": "bcl dcl gcl pcl tcl kcl",
    "affricate": "jh ch",
    "fricative": "s sh z zh f th v dh",
    "nasal": "m n ng em en eng nx",
    "semivowel": "l r w y hh hv el",
    "vowel": "iy ih eh ey ae aa aw ay ah ao oy ow uh uw ux er ax ix axr ax-h",
    "silence": "pau epi h#",
}
OTHER = "other"
CODES = tuple(code for codes in MANNERS.values() for code in codes.split())
CLASS_COUNTS = (61, 39)

RUSSIAN_PREFIX = "ru_"
RUSSIAN = {
    "stop": "p pp b bb t tt d dd k kk g gg",
    "affricate": "c ch",
    "fricative": "f ff v vv s ss z zz sh sch zh h hh j",
    "nasal": "m mm n nn",
    "semivowel": "l ll r rr",
    "vowel": "ii yy uu ee oo aa a e i y u ae ay ur",
}
RUSSIAN_CODES = tuple(RUSSIAN_PREFIX + code for codes in RUSSIAN.values() for code in codes.split())

_MANNER_OF = {code: manner for manner, codes in MANNERS.items() for code in codes.split()}
_MANNER_OF |= {RUSSIAN_PREFIX + code: manner for manner, codes in RUSSIAN.items() for code in codes.split()}
_FOLDED = {
    "aa": "ao",
    "ah": "ax ax-h",
    "er": "axr",
    "hh": "hv",
    "ih": "ix",
    "l": "el",
    "m": "em",
    "n": "en nx",
    "ng": "eng",
    "sh": "zh",
    "sil": "bcl dcl gcl pcl tcl kcl pau epi h#",
    "uw": "ux",
}
_CLASS_OF = {code: phone for phone, codes in _FOLDED.items() for code in codes.split()}
_LEFT_OUT = "q"


def fold(label: str, classes: int) -> str | None:
    """The class of a phone.

    Args:
        label: phone label of the corpus.
        classes: 61 (the codes themselves) or 39.

    Returns:
        The class, or None if the phone is left out.
    """
    if classes not in CLASS_COUNTS:
        raise ValueError(f"{classes} classes; expected one of {CLASS_COUNTS}")
    if classes == 61:
        return label
    return None if label == _LEFT_OUT else _CLASS_OF.get(label, label)


def manner(label: str) -> str:
    """Manner of articulation of a code or a class: a key of `MANNERS`, or "other" for labels of other corpora."""
    return "silence" if label == "sil" else _MANNER_OF.get(label, OTHER)
