"""What may move the matrices of a model: one line for each ``--optimizer``. Standard library only.

All other parameters (embedding, head, gains) are moved by AdamW under every one of them.
"""

from typing import NamedTuple


class Facts(NamedTuple):
    """An optimizer by what a configuration has to know of it before torch is loaded."""

    make: str
    """``module:function`` of what builds it."""
    lr: float
    """The peak learning rate of matrices at depth 4."""
    like: str
    """The one of muon and adamw whose learning rates fit it, where only these were swept."""
    own: tuple[str, ...]
    """Settings that only the update of the matrices uses, besides learning rate and decay."""
    without: tuple[str, ...]
    """Settings of our Muon that it has not."""
    words: str
    package: str = ""
    """What must be installed for it."""


_UPDATES = "spectrain.train._run.updates"
_ONLY_OURS = ("muon_lower", "decay", "bound", "bound_by", "muon_per_head")
_ONLY_MUONS = ("scale", "muon_steps", *_ONLY_OURS)

OPTIMIZERS = {
    "muon": Facts(f"{_UPDATES}:muon", 8e-3, "muon", ("momentum",), (), "ours: momentum orthogonalised by msign"),
    "normuon": Facts(f"{_UPDATES}:normuon", 8e-3, "muon", ("momentum",), (), "ours, each row over its running size"),
    "muoneq": Facts(f"{_UPDATES}:muoneq", 8e-3, "muon", ("momentum",), (), "ours, rows of equal norm before msign"),
    "adamw": Facts(f"{_UPDATES}:adamw", 4e-3, "adamw", (), ("momentum", *_ONLY_MUONS), "AdamW for all"),
    "torch-muon": Facts(f"{_UPDATES}:torch_muon", 8e-3, "muon", ("momentum",), _ONLY_OURS, "torch.optim.Muon"),
    "soap": Facts(
        f"{_UPDATES}:soap", 4e-3, "adamw", ("momentum",), _ONLY_MUONS, "SOAP of pytorch-optimizer", "pytorch_optimizer"
    ),
}
"""By the value of ``--optimizer``."""
TORCH_SCALES = ("match_rms_adamw", "original")
"""Values of ``--scale`` that ``torch.optim.Muon`` has too, under the same names."""
