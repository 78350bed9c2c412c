"""Names of modes as type checkers know them. At run time they are strings, and a wrong one is a tuned ValueError."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    Activation = Literal["softmax", "sigmoid", "relu"]
    Select = Literal["top_k", "threshold"]
    BalanceRule = Literal["sign", "rms", "quantile", "histogram", "none"]
    StepRule = Literal["sign", "rms"]
    PenaltyKind = Literal["product", "squared", "entropy"]
    PenaltyScope = Literal["batch", "sequence", "global"]
    GenerationForm = Literal["auto", "absorbed", "expanded", "full"]
else:
    Activation = Select = BalanceRule = StepRule = PenaltyKind = PenaltyScope = GenerationForm = str
