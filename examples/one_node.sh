#!/bin/sh
# One run on all devices of this machine; give the text as arguments. Started again where a rank ends, nine times at most.
set -eu
ranks=${RANKS:-2}
exec torchrun --standalone --nproc-per-node "$ranks" --max-restarts 9 -m spectrain train \
    --out-dir "${RUN:-runs/mesh}" --resume auto --data "$@"
