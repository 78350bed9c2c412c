"""Training as a weighted average (article 11459): how much of each update is in the final weights, and their size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Values: TypeAlias = float | int | Sequence[float | int] | Shaped[np.ndarray, "..."] | Tensor


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


class MeanField(NamedTuple):
    r"""The final weights of an adaptive optimizer as one of its updates: initial theta_0 - z mbar / sqrt(vbar).

    z is the sum of all coefficients, mbar = sum_j ``gradients[j]`` g_j and vbar = sum_j ``squares[j]`` g_j^2 averages
    over the whole run. With Muon mbar / sqrt(vbar) stands for msign(mbar), and the squares are those of gradients as
    they come. That a mean of quotients is the quotient of means is the approximation; it is exact where v is constant.
    """

    gradients: Float[np.ndarray, " steps"]
    squares: Float[np.ndarray, " steps"]


@dataclass(frozen=True)
class Averaging:
    """How the final weights are made of the updates of a run.

    theta_T = ``initial`` theta_0 - sum_t ``coefficients[t]`` u_t; all float64, in units of the updates.
    ``gradients``: the same for single gradients, with SGD with momentum; else None.
    ``momentum_half_life``: steps in which the momentum's own average forgets half; else None.
    ``mean_field``: what single gradients and their squares weigh with Adam or Muon, in mean field; else None.
    """

    coefficients: Float[np.ndarray, " steps"]
    initial: float
    gradients: Float[np.ndarray, " steps"] | None = None
    momentum_half_life: float | None = None
    mean_field: "MeanField | None" = None

    @cached_property
    def half_life(self) -> float:
        """The number of last steps that hold half of the sum of the coefficients, interpolated.

        log(2) / (lr wd) for a long run at constant rates; infinite where no coefficient is above zero.
        """
        recent = np.concatenate(([0.0], np.cumsum(self.coefficients[::-1])))
        if not recent[-1] > 0:
            return float("inf")
        return float(np.interp(recent[-1] / 2, recent, np.arange(len(recent))))

    def half_life_tokens(self, tokens_per_step: float | int) -> float:
        """``half_life`` in tokens."""
        return self.half_life * tokens_per_step

    def half_life_epochs(self, steps_per_epoch: float | int) -> float:
        """``half_life`` in passes over the data."""
        return self.half_life / steps_per_epoch


def averaging_coefficients(
    lr: Values, wd: Values, betas: float | int | Sequence[float | int] | None = None
) -> Averaging:
    r"""Return the weights with which the updates of a run enter its final weights; exact, not an estimate.

    With theta_t = theta_{t-1} - lr_t (u_t + wd_t theta_{t-1}), which is how AdamW and Muon decay,

        theta_T = prod_t (1 - lr_t wd_t) theta_0 - sum_t lr_t prod_{s > t} (1 - lr_s wd_s) u_t.

    ``lr`` and ``wd`` hold a value for each step; one of them may be a single number. ``betas``: a float is
    the momentum of SGD, u_t = m_t = beta m_{t-1} + (1 - beta) g_t, and gives the weights of single gradients
    too. A pair is Adam's or (momentum, 0) Muon's: there u is not linear in the gradients. What they weigh is then known
    in mean field only (the article's beta bar 1 and 2, which sum to nearly one), with c_i the weights of updates:

        bar_1(j) = (1 - beta_1) sum_{i >= j} beta_1^(i - j) c_i / sum_i c_i,    bar_2(j) the same of beta_2.

    Raises ValueError for empty, negative or non-finite values and lengths that differ. Cost: a few passes.
    Source: article 11459 (kexue.fm/archives/11459), there with exp(-lr wd) for 1 - lr wd; the view is that of
    Wang and Aitchison, arXiv 2405.13698.

    >>> run = averaging_coefficients([1.0, 1.0, 1.0], 0.5)
    >>> run.initial, run.coefficients.tolist(), run.half_life
    (0.125, [0.25, 0.5, 1.0], 0.875)
    """
    rates, decays = _sequences(lr, wd)
    keep = 1 - rates * decays
    after = np.concatenate((np.cumprod(keep[::-1])[::-1], [1.0]))
    coefficients = rates * after[1:]
    first = betas[0] if isinstance(betas, Sequence) else betas
    if first is None:
        return Averaging(coefficients, float(after[0]))
    if not 0 <= first < 1:
        raise ValueError(f"averaging_coefficients: momentum must be in [0, 1), got {first}.")
    life = float(np.log(2) / -np.log(first)) if first else 0.0
    if not isinstance(betas, Sequence):
        return Averaging(coefficients, float(after[0]), through_momentum(coefficients, first), life)
    if len(betas) != 2 or not 0 <= betas[1] < 1:
        raise ValueError(f"averaging_coefficients: betas must be a pair of numbers in [0, 1), got {betas}.")
    total = coefficients.sum() or 1.0
    field = MeanField(*(through_momentum(coefficients / total, beta) for beta in betas))
    return Averaging(coefficients, float(after[0]), None, life, field)


def through_momentum(coefficients: Float[np.ndarray, " steps"], beta: float | int) -> Float[np.ndarray, " steps"]:
    """Return d_j = (1 - beta) sum_{i >= j} beta^(i-j) c_i, the weights of gradients where c_i weighs their average."""
    weights = np.empty_like(coefficients)
    later = 0.0
    for j in range(len(coefficients) - 1, -1, -1):
        later = (1 - beta) * coefficients[j] + beta * later
        weights[j] = later
    return weights


def _array(values: Values) -> Float[np.ndarray, "..."]:
    """In float64; a tensor of any dtype and device, whatever it is needed for."""
    plain = values.detach().to("cpu", torch.float64) if isinstance(values, Tensor) else values
    return np.asarray(plain, dtype=np.float64)


def _sequences(lr: Values, wd: Values) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    """Both as float64 arrays of one length, checked."""
    rates, decays = _array(lr), _array(wd)
    if rates.ndim > 1 or decays.ndim > 1 or (rates.ndim == 0 and decays.ndim == 0):
        raise ValueError(
            "averaging_coefficients: lr or wd must hold one value for each step, got shapes "
            f"{rates.shape} and {decays.shape}. For a constant run give lr=[rate] * steps."
        )
    if rates.ndim == decays.ndim == 1 and len(rates) != len(decays):
        raise ValueError(f"averaging_coefficients: {len(rates)} learning rates and {len(decays)} decays.")
    rates, decays = np.broadcast_arrays(rates, decays)
    if not len(rates) or not (np.isfinite(rates).all() and np.isfinite(decays).all()):
        raise ValueError("averaging_coefficients: lr and wd must be finite numbers, at least one.")
    if (rates < 0).any() or (decays < 0).any():
        raise ValueError("averaging_coefficients: lr and wd must be >= 0.")
    return rates, decays


def schedule_from_coefficients(
    coefficients: Values,
    *,
    lr: float | int,
    weight_decay: float | int,
    joint: bool = False,
    momentum: float | int = 0.0,
) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    r"""Return learning rates and decays, one a step, under which updates have weights in these proportions.

    The inverse of ``averaging_coefficients``: ``np.ones(T)`` asks for a flat memory, ``np.arange(1, T + 1)``
    for a linear one, ``np.arange(T) >= 0.8 * T`` for the last fifth. ``lr`` is the largest learning rate of the
    result. With constant decay and S_t = w_1 + ... + w_t the answer is lr_t = w_t / (K + weight_decay S_t);
    with ``joint``, decay proportional to the learning rate with ``weight_decay`` as the largest, it is a
    quadratic equation a step. ``momentum``: w weighs gradients, through SGD's momentum; the last update then
    has to empty the buffer.

    Raises ValueError for negative, non-finite or all-zero weights, for lr weight_decay >= 1, and for weights
    of gradients that fall faster than the momentum, which no schedule gives. Derived from article 11459
    (kexue.fm/archives/11459) without its approximations.

    >>> rates, decays = schedule_from_coefficients(np.ones(4), lr=0.5, weight_decay=1.0)
    >>> (1 / rates).round(6).tolist()
    [2.0, 3.0, 4.0, 5.0]
    """
    w = _wanted(np.asarray(coefficients, dtype=np.float64), momentum)
    if not (lr > 0 and weight_decay >= 0 and lr * weight_decay < 1):
        raise ValueError(
            "schedule_from_coefficients: needs lr > 0, weight_decay >= 0 and lr * weight_decay < 1, "
            f"got {lr} and {weight_decay}."
        )
    if joint and weight_decay:
        rates = _joint_rates(w, lr, weight_decay / lr)
        return rates, rates * (weight_decay / lr)
    total = np.cumsum(w)
    rates = w / (np.max(w / lr - weight_decay * total) + weight_decay * total)
    return rates, np.full_like(rates, weight_decay)


def _wanted(w: Float[np.ndarray, "*shape"], momentum: float | int) -> Float[np.ndarray, " steps"]:
    """Checked weights of updates, from those of gradients where there is momentum."""
    if w.ndim != 1 or not len(w) or not np.isfinite(w).all() or (w < 0).any() or not w.any():
        raise ValueError("schedule_from_coefficients: needs finite weights >= 0, one a step, not all zero.")
    if not 0 <= momentum < 1:
        raise ValueError(f"schedule_from_coefficients: momentum must be in [0, 1), got {momentum}.")
    updates = (w - momentum * np.append(w[1:], 0.0)) / (1 - momentum)
    if (updates < 0).any():
        step = int(np.argmax(updates < 0))
        raise ValueError(
            f"schedule_from_coefficients: with momentum {momentum} the weight of a gradient is at least "
            f"{momentum} times that of the next; step {step} has {w[step]:.3g} before {w[step + 1]:.3g}."
        )
    return updates


def _joint_rates(w: Float[np.ndarray, " steps"], lr: float | int, ratio: float) -> Float[np.ndarray, " steps"]:
    """Learning rates for decay = ratio * rate, their largest brought to lr by bisection on the one free number."""
    low, high = 0.0, 1.0
    while _rates_at(w, high, ratio).max() < lr:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _rates_at(w, middle, ratio).max() < lr else (low, middle)
    return _rates_at(w, high, ratio)


def _rates_at(w: Float[np.ndarray, " steps"], scale: float, ratio: float) -> Float[np.ndarray, " steps"]:
    """lr_t = scale w_t / E_t with E_t = E_{t-1} / (1 - ratio lr_t^2), so that lr_t E_t is proportional to w_t."""
    rates = np.empty_like(w)
    grown = 1.0
    for t, wanted in enumerate(scale * w):
        grown = (grown + np.sqrt(grown**2 + 4 * ratio * wanted**2)) / 2
        rates[t] = wanted / grown
    return rates
