"""How large weights become where learning rate and decay balance."""

import math


def weight_rms(
    lr: float | int, wd: float | int, *, update_rms: float | int = 0.2, momentum: float | int = 0.0
) -> float:
    r"""Return the RMS to which weights tend under theta <- theta - lr (u + wd theta) with random updates.

    For updates of RMS r whose correlation falls as momentum^k over k steps, as an average of uncorrelated
    gradients has it, exactly

        RMS^2 = lr^2 r^2 (1 + b momentum) / ((1 - b^2) (1 - b momentum)),    b = 1 - lr wd,

    about r^2 (lr / 2 wd) (1 + momentum) / (1 - momentum). With Adam's r^2 = (1 - beta) / (1 + beta) this is the
    sqrt(lr / 2 wd) of article 11307 (kexue.fm/archives/11307). It is an estimate: real gradients are correlated
    and drift, and the balance takes several 1 / (lr wd) steps. ``update_rms`` is 0.2 for AdamW and for Muon with
    ``match_rms_adamw``.

    Raises ValueError unless lr > 0, 0 < lr wd < 1 and 0 <= momentum < 1.

    >>> round(weight_rms(1e-3, 0.1, update_rms=(0.1 / 1.9) ** 0.5, momentum=0.9), 4)
    0.0707
    """
    if not (lr > 0 and 0 < lr * wd < 1 and 0 <= momentum < 1):
        raise ValueError(f"weight_rms: needs lr > 0, 0 < lr wd < 1, 0 <= momentum < 1, got {lr}, {wd}, {momentum}.")
    b = 1 - lr * wd
    correlated = (1 + b * momentum) / (1 - b * momentum)
    return lr * update_rms * math.sqrt(correlated / ((1 - b) * (1 + b)))
