"""Names of modes as type checkers know them. At run time they are strings, and a wrong one is a tuned ValueError."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    Objective = Literal["full", "model", "data", "flow", "leaky", "shortcut"]
    Law = Literal["logit-normal", "uniform"]
else:
    Objective = Law = str
