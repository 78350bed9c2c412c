#!/bin/sh
# One run on all devices of this machine by accelerate, where that is what you start things with; give the text as
# arguments. It hands over to torchrun, so that restarts and messages are those of one_node.sh.
set -eu
exec accelerate launch --multi_gpu --num_processes "${RANKS:-2}" --num_machines 1 --max_restarts 9 \
    --mixed_precision no --dynamo_backend no \
    -m spectrain train --out-dir "${RUN:-runs/mesh}" --resume auto --data "$@"
