"""msign: the matrix sign on singular values, U V^T for X = U S V^T."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.finite import locate_errors
from spectrain._arrays.typed import alike_or_lists
from spectrain.approx import Schedule
from spectrain.matfun._derivative.derivative import is_differentiated, spectral_function
from spectrain.matfun._derivative.sign import change_of_sign
from spectrain.matfun._entry.batches import flat, in_batches, in_cache, joined
from spectrain.matfun._entry.input import Array, Real, check_tolerance, enter, is_complex, real_dtype
from spectrain.matfun._iteration.design import able_dtype, safe_schedule, schedule_for_steps, working_dtype
from spectrain.matfun._iteration.recipe import Recipe
from spectrain.matfun._modes import SignMethod
from spectrain.matfun._proven.algorithms import methods
from spectrain.matfun._proven.plan import Plan
from spectrain.matfun._proven.stages import sign

_METHODS = ("plain", "gram", *methods())


def _inside(lower: Real | str) -> bool:
    return not isinstance(lower, str) and 0 < lower < 1


@dataclass(frozen=True, slots=True)
class _Request:
    """What the caller of msign asked for, checked."""

    tol: Real | None
    steps: int | None
    schedule: Schedule | None
    method: str | None
    rtol: Real | None
    out_dtype: torch.dtype | None
    dtype: torch.dtype | None
    lower: Real | str | None
    plan: Plan | None
    embedded: bool = False  # whether some matrix is complex and has come as a real one of twice the size

    def __post_init__(self) -> None:
        budget = self.steps is not None or self.schedule is not None
        if self.plan is not None and (budget or self.tol is not None or self.method is not None):
            raise ValueError("msign: plan= says tol and method itself; leave tol=, steps=, schedule= and method= out")
        if sum(x is not None for x in (self.tol, self.steps, self.schedule)) > 1:
            raise ValueError("msign: tol=, steps= and schedule= are three ways to say one thing; give at most one")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"msign: steps must be at least 1, got {self.steps}")
        if self.lower is not None and (self.steps is None or not (self.lower == "measured" or _inside(self.lower))):
            raise ValueError(f'msign: lower={self.lower!r} must be in (0, 1) or "measured", and goes with steps=')
        if self.method is not None and self.method not in _METHODS:
            raise ValueError(f"msign: method must be one of {', '.join(_METHODS)} or None, got {self.method!r}")
        if self.rtol is not None and (budget or not 0 <= self.rtol < 1):
            raise ValueError(
                f"msign: rtol={self.rtol} must be in [0, 1) and needs tol=; a fixed number of steps cannot tell a "
                "small singular value from a zero one"
            )
        if budget and self.method in methods():
            raise ValueError(
                f"msign: method={self.method!r} goes with a tolerance and takes no steps= or schedule=; leave one out"
            )
        if not budget and (self.method in ("plain", "gram") or self.dtype is not None):
            raise ValueError('msign: method="plain", method="gram" and dtype= go with steps= or schedule=')

    def check(self, X: Tensor) -> None:
        """Raise ValueError where the tolerance or the plan does not fit X."""
        dtype = self.out_dtype or X.dtype
        check_tolerance(self.tol, dtype, "msign")
        if self.plan is not None and (self.plan.shape, self.plan.dtype) != (tuple(X.shape[-2:]), dtype):
            raise ValueError(
                f"msign: the plan is for matrices {self.plan.shape} and results in {self.plan.dtype}, got "
                f"{tuple(X.shape[-2:])} and {dtype}; make another with matfun.plan"
            )

    @property
    def stages(self) -> str | None:
        """What the certified computation takes as its method: one of them, or the stages of a plan."""
        return self.method if self.plan is None else self.plan.method

    @property
    def iterates(self) -> bool:
        """Whether a fixed schedule is applied, without looking at the spectrum."""
        return self.steps is not None or self.schedule is not None

    def recipe(self, inputs: torch.dtype) -> Recipe:
        """Return how the schedule is applied to inputs of a dtype."""
        dtype = working_dtype(self.dtype, inputs, self.schedule)
        if self.schedule is not None:
            able = able_dtype(self.schedule, dtype)
            if able != dtype and self.dtype is not None:
                warnings.warn(
                    f"msign: rounding in {dtype} would carry singular values out of the bounds of this schedule; "
                    f"it is applied in {able}",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return Recipe(safe_schedule(self.schedule, able), able, self.method)
        measured = self.lower == "measured"
        lower = None if isinstance(self.lower, str) or self.lower is None else float(self.lower)
        schedule = schedule_for_steps(self.steps or 1, dtype, lower)
        return Recipe(schedule, dtype, self.method, finish=True, measured=measured)


@alike_or_lists
@locate_errors("X")
def msign(
    X: Array | Sequence[Array],
    *,
    tol: Real | None = None,
    steps: int | None = None,
    schedule: Schedule | None = None,
    method: SignMethod | None = None,
    rtol: Real | None = None,
    out_dtype: torch.dtype | None = None,
    dtype: torch.dtype | None = None,
    lower: Real | str | None = None,
    plan: Plan | None = None,
) -> Array | list[Array]:
    """Return U V^T over the nonzero singular values of X = U diag(S) V^T: every one of them becomes 1.

    X is one matrix, a batch (the last two dimensions are the matrix), or a list of matrices of any shapes, for which a
    list comes back. NumPy arrays give NumPy arrays. Any real floating dtype goes in; the same dtype comes out unless
    ``out_dtype`` says otherwise. The result does not depend on the scale of X: ``msign(2.0**k * X)`` is ``msign(X)``
    bit for bit wherever ``2.0**k * X`` is exact. A zero matrix gives zero, an empty one gives an empty one.

    With ``tol`` (default by output dtype: 5e-2 for bfloat16 and float16, 1e-4 for float32, 1e-10 for float64) the
    relative Frobenius error ||Y - msign(X)|| / ||msign(X)|| is at most tol. Singular values below the rounding
    noise of the input, u rms(X) (sqrt(m) + sqrt(n)) with u the unit roundoff of its dtype (of float64: that of its
    decomposition, 2 u (max(m, n) + 8) sigma_max), or below rtol times the largest, count as zero and stay zero; one
    within its own error of that cut is refused like a tolerance that cannot be proven. The bound is proven from the
    input and the result, see :func:`polar`, which returns it; :func:`plan` prints how. Where float64 cannot prove tol
    (condition above 1e5 with the default of float64), a tol that was given is a ValueError and the default one a
    RuntimeWarning. ``method`` "eigh" or "svd" leaves out all others; "iterate" (polynomials), "qdwh" (weighted Halley
    steps) and "jacobi" (rotations, for which rows of the short side that differ in size by any factor are no
    difficulty) come before "svd", which takes the matrices for which they prove nothing. ``plan``, one that
    :func:`plan` made here or ``Plan.from_json`` read, stands for tol and method: the same stages in the same order,
    whatever table of costs this process has, hence the same result bit for bit on the same machine.

    With ``steps`` (so many optimal quintics) or ``schedule`` (from :func:`spectrain.approx.sign_schedule`) the
    schedule is applied as it is, after division by a bound on sigma_max that costs nearly nothing: the Schatten-16
    norm of X up to a short side of 256 (in half precision 1024), beyond that the lesser of the Schatten-8 norm and 1.15
    times what eight products of the power method with eight vectors find. Relative singular values above the lower end
    of the schedule's interval are then mapped to within the schedule's error of 1; smaller ones are raised part of the
    way. ``steps=k`` is designed for singular values down to ``lower``, by default 0.4 * 0.3**(k - 1), a little more up
    to three and in half precision, and not below the rounding noise; with ``lower="measured"`` every matrix takes the
    best of a few such designs for its spectrum, which is looked at by eight Lanczos steps on its Gram matrix. After
    ``steps`` quintics the smallest 1/32 of the singular values (16 to 64, from a short side of 160 on) are brought to
    1 exactly, if they are above the rounding noise of the input, span a singular space, and are all that is missing. In
    half precision, on a processor, that is left out where it would change little: where no matrix of a batch has a
    relative error above 0.02, or twice that of the schedule, whichever is larger.

    Long matrices take the Gram iteration where that is less work: the polynomials are multiplied on the short side,
    and a list runs as one batch for each short side, A, its transpose and all others with that side together. It is
    restarted as often as rounding in the working dtype demands; ``method`` "plain" or "gram" forces one of the two, and
    "gram" is refused where three restarts are not enough, as in bfloat16 from two to five quintics on.
    The iteration runs in ``dtype``, by default that of the input (float32 for float16, and for bfloat16 with a
    schedule that is not made for it). bfloat16 is several times faster where the processor has such products; then
    rounding adds an error of about 2**-8 times the condition of X.

    No result blows up. The intervals of ``steps=`` are widened by what rounding can add to the largest singular value
    in each step, and a ``schedule`` that leaves no room for the rounding of the working dtype is made smaller by that
    much (1e-5 in float32 for an exactly optimal one): with ``steps=`` singular values stay below 1.02, in half
    precision below 1.05. What comes out is looked at all the same, at the price of three products with eight columns,
    in half precision of one product on the long side, by which the tail is found as well. A matrix that is beyond
    bounds is computed a second time, in the next wider dtype, with a RuntimeWarning, and counted by :func:`tries`; in a
    compiled graph, and on devices that would have to wait, it is divided by its size instead.

    Differentiable any number of times, forward and backward: the derivative is that of the exact msign at the computed
    result, from X and the result alone, so memory does not depend on the number of steps. It exists for matrices of
    constant rank; where the rank is not full, the directions that would change it contribute zero.

    Complex matrices have their unitary polar factor; they are computed as real ones of twice the size.
    ``torch.compile`` takes ``steps=`` and ``schedule=``, but not ``lower="measured"``, into one graph, where NaN input
    is not refused but gives NaN; with a tolerance the function is one operator of the graph.

    Errors: ValueError for NaN or infinite entries, fewer than two dimensions, more than one of tol, steps and
    schedule, or a tol below twice the unit roundoff of the output dtype; TypeError for integer and non-tensor
    input.

    Cost, k the short and l the long side, in multiplications: k^2 (2 l + k) a step; exact, one SVD in float64.
    Source: articles 10922 and 10996 (kexue.fm/archives/10996), Polar Express (arXiv 2505.16932).

    >>> X = torch.tensor([[0.0, 2e-20], [3e-20, 0.0]], dtype=torch.float64)
    >>> msign(X).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    >>> A = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    >>> Y = msign(A, steps=5)
    >>> bool(torch.linalg.matrix_norm(Y - msign(A)) < 0.05 * 8)
    True
    """
    out_dtype = None if out_dtype is None else real_dtype(out_dtype)
    single = not isinstance(X, list | tuple)
    given = [X] if single else X
    request = _Request(
        tol, steps, schedule, method, rtol, out_dtype, dtype, lower, plan, embedded=any(map(is_complex, given))
    )
    doors = [enter(matrix, "msign") for matrix in given]
    matrices = [matrix for matrix, _ in doors]
    if not request.iterates:
        for matrix in matrices:
            request.check(matrix)
    if single or is_differentiated(matrices):
        results = [_differentiable(Y, request) for Y in matrices]
    else:
        results = _all(matrices, request)
    results = [leave(Y) for (_, leave), Y in zip(doors, results, strict=True)]
    return results[0] if single else results


def _differentiable(X: Tensor, request: _Request) -> Tensor:
    """Return msign of one tensor by a node of the autograd graph that keeps X and the result only."""
    if not request.iterates:
        return _all([X], request)[0]
    return spectral_function(flat(X), lambda batch: tuple(_all([batch], request)), change_of_sign)[0].reshape(X.shape)


def _all(matrices: list[Tensor], request: _Request) -> list[Tensor]:
    """Return msign of every matrix, those that can share the work as one batch."""
    if request.iterates:
        return _iterated(matrices, request)
    return in_batches(
        matrices, lambda group: _certify(group, request), key=lambda X: X.shape[-2:], out_dtype=request.out_dtype
    )


def _iterated(matrices: list[Tensor], request: _Request) -> list[Tensor]:
    """Return the schedule applied to matrices and batches of them, of which large ones are cut into several."""
    recipes = {dtype: request.recipe(dtype) for dtype in {X.dtype for X in matrices}}
    company: dict[tuple[torch.dtype, torch.Size], tuple[str, int]] = {}
    for X in matrices:
        kind = (X.dtype, X.shape[-2:])
        if kind not in company:
            company[kind] = recipes[X.dtype].company(X.shape)
    itemsize = max([recipe.dtype.itemsize for recipe in recipes.values()], default=4)
    cuts = [in_cache(X, itemsize) for X in matrices]
    found = iter(
        in_batches(
            [part for cut in cuts for part in cut],
            lambda group: recipes[group[0].dtype](group),
            key=lambda X: company[X.dtype, X.shape[-2:]],
            out_dtype=request.out_dtype,
            itemsize=itemsize,
        )
    )
    return [joined([next(found) for _ in cut]).reshape(X.shape) for X, cut in zip(matrices, cuts, strict=True)]


def _certify(group: list[Tensor], request: _Request) -> list[Float[Tensor, "_ _ _"]]:
    """Return msign within the tolerance of matrices of one shape."""
    first = group[0]
    if min(first.shape[-2:]) == 0:
        return [flat(X) for X in group]
    found = sign(
        torch.cat([flat(X) for X in group]),
        tol=request.tol if request.plan is None else request.plan.tol,
        rtol=request.rtol,
        method=request.stages,
        out_dtype=request.out_dtype or first.dtype,
        name="msign",
        slack=torch.finfo(request.out_dtype or first.dtype).eps / 2 if request.embedded else 0.0,
    )
    return list(found.Y.split([X.shape[:-2].numel() for X in group]))
