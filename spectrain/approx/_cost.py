"""What a schedule costs in matrix products."""

from collections.abc import Sequence
from dataclasses import dataclass

from spectrain.approx._polynomial import Number


def products_of_polynomial(degree: int) -> int:
    """Products that form q(A), q of this degree and A at hand (Paterson and Stockmeyer, SIAM J. Comput. 1973).

    >>> [products_of_polynomial(k) for k in (1, 2, 3, 4, 6, 9)]
    [0, 1, 2, 2, 3, 4]
    """
    return min((s - 1) + -(-degree // s) - 1 for s in range(1, degree + 1))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The price of applying odd polynomials to an m x n matrix X, n <= m, in products of two n x n matrices.

    ``aspect`` is m / n: a product with X on one side costs that much. ``symmetric`` counts products with a symmetric
    result at half price. ``gram`` iterates on X^T X and multiplies X at the end (and once more when restarting
    after the second step, which half precision needs): 2 flops n^3 times the price are the flops.

    >>> cost = Cost()
    >>> [cost.step(d) for d in (3, 5, 7, 9, 13)]
    [2.0, 3.0, 4.0, 4.0, 5.0]
    >>> [Cost(symmetric=True).step(d) for d in (3, 5, 9, 13)]
    [1.5, 2.0, 2.5, 3.0]
    >>> a = 4.0                                     # five quintics: (20 a + 10) n^3 and (8 a + 28) n^3 flops
    >>> 2 * Cost(aspect=a).total([5] * 5) == 20 * a + 10
    True
    >>> 2 * Cost(aspect=a, gram=True).total([5] * 5) == 8 * a + 28
    True
    """

    gram: bool = False
    symmetric: bool = False
    aspect: Number = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.aspect < float("inf"):
            raise ValueError(
                f"aspect is the longer side over the shorter one, at least 1, got {self.aspect}. "
                "Transposing the matrix changes nothing."
            )

    @property
    def _half(self) -> float:
        return 0.5 if self.symmetric else 1.0

    def step(self, degree: int) -> float:
        """Price of one odd step of this degree (in Gram form: of one more)."""
        inner = self._half * products_of_polynomial((degree - 1) // 2)
        # Gram form: q(A), then Q <- Q q and the two products of A <- q A q. Plain form: X X^T, q(A), q X.
        return inner + 3 * self._half if self.gram else inner + (1 + self._half) * self.aspect

    def total(self, degrees: Sequence[int]) -> float:
        """Price of the whole schedule."""
        return sum(map(self.step, degrees)) + self.fixed(len(degrees))

    def fixed(self, steps: int) -> float:
        """What Gram form pays once and saves at its first and last step; plain form: nothing."""
        if not self.gram or not steps:
            return 0.0
        passes = 2 if steps > 2 else 1
        return passes * ((1 + self._half) * self.aspect - 3 * self._half)
