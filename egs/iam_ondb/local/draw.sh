#!/usr/bin/env bash
# End of stage 5: pages of handwriting, source B's figure 3.
set -euo pipefail
exp=    # exp/<train_set>
dump=   # dump of the set of the real lines
models= # names of experiments
seeds=  # seeds of their trainings
. utils/parse_options.sh

exec python local/draw.py --exp "${exp}" --dump "${dump}" --models "${models}" --seeds "${seeds}"
