"""What of a configuration may change while its run goes on. Standard library only."""

FREE = (
    "resume", "out_dir", "log_interval", "mesh", "tensor_parallel", "expert_parallel", "rank_timeout", "recompute",
    "logger",
)  # fmt: skip
"""What may differ when a run goes on: where and by whom it is computed, and when it is said. It decides nothing that is
learned, other ranks than before to rounding."""
