"""Probes: small recognisers on frozen representations, which show what can be decoded, and with how many labels.

Every representation is brought to one clock (`clock`), gets the same recogniser, the same number of optimiser steps on
the same batches (`training`), and is compared by its error on the test set (`tasks`). Results of single runs stay on
disk (`runs`), so that nothing that is finished is done again.
"""

SETS = ("train", "valid", "test")
USUAL_VOCABULARY = 100
"""Units of transcripts, unless their number is given or the text supports fewer."""
