"""Probes: small recognisers on frozen representations, which show what can be decoded, and with how many labels.

Every representation is resampled to the same clock (`clock`), gets the same recogniser and the same number of optimiser
steps on the same batches (`training`), and is compared by its error on the test set (`tasks`). Results of single runs
are kept on disk (`runs`), so that finished runs are not repeated.
"""

SETS = ("train", "valid", "test")
USUAL_VOCABULARY = 100
"""Default number of sentencepiece units; fewer if the text does not support as many."""
