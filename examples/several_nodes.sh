#!/bin/sh
# One run on several machines: the same command on each of them. HEAD is the name of one; RUN is on a disk they share.
# ADDRESS is this machine's, where its own name does not lead the others to it; HEAD is then the address of one.
set -eu
head=$([ "${ADDRESS:-}" = "$HEAD" ] && echo true || echo false)
exec torchrun --nnodes "$NODES" --nproc-per-node "${RANKS:-8}" --max-restarts 9 \
    --rdzv-backend c10d --rdzv-endpoint "$HEAD:29400" --rdzv-id "${ID:-spectrain}" \
    ${ADDRESS:+--local-addr "$ADDRESS" --rdzv-conf "is_host=$head"} \
    -m spectrain train --out-dir "$RUN" --resume auto --mesh "${NODES}x${RANKS:-8}" --data "$@"
