"""Scale modes: four formulas, the names users know, and what each is for."""

import math
import re
from pathlib import Path

import pytest
import torch

from spectrain.optim._step.scale import ALIASES, REFUSED, SCALES, canonical, factor

PAGE = Path(__file__).parents[2] / "docs" / "muon.md"

PUBLISHED = [  # article 11416: Naive, KellerJordan, MuP, Moonlight, for out x in
    ("none", lambda out, in_: 1.0),
    ("original", lambda out, in_: max(1, out / in_) ** 0.5),
    ("spectral", lambda out, in_: (out / in_) ** 0.5),
    ("match_rms_adamw", lambda out, in_: 0.2 * max(out, in_) ** 0.5),
]


@pytest.mark.parametrize(("name", "formula"), PUBLISHED)
@pytest.mark.parametrize("shape", [(64, 64), (64, 256), (256, 64), (1, 7)])
def test_published_formulas(name, formula, shape):
    assert math.isclose(factor(name, *shape), formula(*shape), rel_tol=1e-15)


def test_torchs_own_modes():
    """torch.optim.Muon knows two of the four."""
    from torch.optim._muon import _adjust_lr

    for name in ("original", "match_rms_adamw"):
        for shape in [(64, 256), (256, 64)]:
            assert math.isclose(factor(name, *shape), _adjust_lr(1.0, name, torch.Size(shape)), rel_tol=1e-15)


def test_aliases_and_refusals():
    assert all(canonical(alias) == name for alias, name in ALIASES.items())
    assert set(ALIASES.values()) == set(SCALES) - {"none"}
    assert not set(REFUSED) & (set(SCALES) | set(ALIASES))
    for name in REFUSED:
        with pytest.raises(ValueError, match="learning rate moves with the width"):
            factor(name, 4, 4)


def test_the_page_has_one_row_for_each_mode_and_every_alias():
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    rows = {}
    for names in (re.findall(r"`(\w+)`", line) for line in table):
        rows.setdefault(names[0] if names else "", set()).update(names[1:])
    for name in SCALES:
        assert {alias for alias, to in ALIASES.items() if to == name} <= rows[name], name


def test_spectral_turns_unit_rms_into_unit_rms():
    """The spectral condition: an update of norm sqrt(out/in) moves outputs by RMS one for inputs of RMS one."""
    generator = torch.Generator().manual_seed(0)
    for out, in_ in [(32, 128), (128, 32)]:
        X = torch.randn(out, in_, generator=generator, dtype=torch.float64)
        U, _, Vh = torch.linalg.svd(X, full_matrices=False)
        update = factor("spectral", out, in_) * U @ Vh
        x = Vh[0] * in_**0.5
        assert math.isclose((update @ x).square().mean().sqrt().item(), 1.0, rel_tol=1e-12)
