#!/usr/bin/env bash
# End of stage 5: film strips and animations of generated and real motion.
set -euo pipefail
exp=    # experiments of the training set
dump=   # dump of the test set
models= # names of experiments
seeds=1 # seeds of each
. utils/parse_options.sh

exec python local/draw.py --exp "${exp}" --dump "${dump}" --models "${models}" --seeds "${seeds}"
