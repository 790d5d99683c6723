"""Libri-Light's fine-tuning subset in small, beside the test sets of LibriSpeech that it is scored on."""

from __future__ import annotations

from pathlib import Path

from imitations import librispeech

# The clean speakers are of train-clean-100, the other ones of train-other-500.
FOLDS = {
    "0": {"clean": {"3526": "F", "831": "M"}, "other": {"4262": "F", "978": "M"}},
    "1": {"clean": {"248": "F", "911": "M"}, "other": {"4959": "F", "1746": "M"}},
}


def make(root: Path, utterances: int = 2, frames: int = 8000) -> Path:
    """Both corpora: ``1h/<fold>``, ``9h`` (from the same chapters) and labels of phonemes; LibriSpeech's test sets.

    Args:
        root: where they are laid out.
        utterances: of each speaker, in 1h and again in 9h.
        frames: of the shortest utterance, at 16 kHz.

    Returns:
        ``<root>/librispeech_finetuning``; ``<root>/LibriSpeech`` is beside it.
    """
    corpus = root / "librispeech_finetuning"
    for fold, parts in FOLDS.items():
        for kind, speakers in parts.items():
            for index, speaker in enumerate(speakers):
                for part, first in ((f"1h/{fold}", 0), ("9h", utterances)):
                    numbers = range(first, first + utterances)
                    librispeech.write_chapter(corpus / part / kind, speaker, 175658 + index, numbers, frames)
    (corpus / "phones").mkdir()
    (corpus / "phones/phones_mapping.json").write_text("{}\n", encoding="utf-8")
    tests = librispeech.make(root, ("dev-clean", "dev-other", "test-clean", "test-other"), utterances, frames)
    clean, other = (
        {s: sex for parts in FOLDS.values() for s, sex in parts[kind].items()} for kind in ("clean", "other")
    )
    librispeech.write_speakers(tests, {**librispeech.SPEAKERS, "train-clean-100": clean, "train-other-500": other})
    return corpus


def recipe_arguments(root: Path) -> list[str]:
    """Makes the corpora in `root`; arguments of run.sh that go through all stages in a minute."""
    make(root)
    sizes = "--model_conf.channels 8 --model_conf.layers_per_block 4 --model_conf.blocks 1"
    training = f"--limits.steps 3 --data.batch_frames 16000 --data.segment_frames 8000 {sizes}"
    return [
        *("--data_root", str(root), "--test_sets", "dev_clean", "--nj", "1"),
        *("--models", "wavenet_s1_c48", "--train_args", training, "--sample_seconds", "0.1", "--analyses", "levels"),
    ]
