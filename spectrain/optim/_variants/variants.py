"""All variants of the update; a new one is a file beside this one, and a line here."""

from spectrain.optim._variants.adam import ADAM
from spectrain.optim._variants.muoneq import MUONEQ
from spectrain.optim._variants.normuon import NORMUON
from spectrain.optim._variants.variant import Variant

PLAIN = Variant(name="plain", words="msign of the momentum average")

# In one order on all ranks: over ranks they take their turns in it, and each has its own reductions.
VARIANTS: tuple[Variant, ...] = (PLAIN, ADAM, NORMUON, MUONEQ)
BY_NAME = {variant.name: variant for variant in VARIANTS}
