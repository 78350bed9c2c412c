"""Published schedules as data, each with its source: to compare with and to reproduce, with our certified errors.

`RECIPES` maps a name to a `Recipe`; ``certify(name, lower)`` gives the schedule with its proven error on [lower, 1].
Coefficients stand as published. Several recipes divide the input first; that is part of the recipe (``divide``).
"""

from dataclasses import dataclass

from spectrain.approx._polynomial import Number, Polynomial
from spectrain.approx._schedule import Cost, Schedule, certified
from spectrain.approx._schedules.root import root_below

Rows = tuple[tuple[float, ...], ...]

_JORDAN = (3.4445, -4.7750, 2.0315)
_EXPRESS: Rows = (
    (8.287212018145622, -23.59588651909882, 17.300387312530923),
    (4.107059111542197, -2.9478499167379084, 0.54484310829266),
    (3.9486908534822938, -2.908902115962947, 0.5518191394370131),
    (3.3184196573706055, -2.488488024314878, 0.5100489401237208),
    (2.3006520199548186, -1.6689039845747518, 0.4188073119525678),
    (1.8913014077874002, -1.2679958271945908, 0.37680408948524996),
    (1.875, -1.25, 0.375),
    (1.875, -1.25, 0.375),
)
_SAFER: Rows = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def _over_1024(*rows: tuple[int, int, int]) -> Rows:
    """Coefficients that were published as whole numbers over 1024."""
    return tuple(tuple(c / 1024 for c in row) for row in rows)


@dataclass(frozen=True)
class Recipe:
    """A published schedule: one row of coefficients of x, x^(r+1), x^(2r+1), ... a step, r = ``stride`` (2: odd).

    ``divide`` is what the recipe divides the input by beyond its norm; ``safety`` divides the argument of every step,
    or of every step but the last where ``last`` is False.
    """

    rows: Rows
    source: str
    divide: float = 1.0
    safety: float = 1.0
    last: bool = True
    stride: int = 2

    @property
    def steps(self) -> tuple[Polynomial, ...]:
        """The polynomials as they are applied."""
        result = []
        for t, row in enumerate(self.rows):
            p = Polynomial(tuple(1 + self.stride * j for j in range(len(row))), tuple(map(float, row)))
            factor = self.safety if self.last or t < len(self.rows) - 1 else 1.0
            factor *= self.divide if t == 0 else 1.0
            result.append(p if factor == 1 else p.scaled(1 / factor))
        return tuple(result)

    @property
    def products(self) -> float:
        """Matrix products, plain form (odd recipes)."""
        return Cost().total([2 * len(row) - 1 for row in self.rows])


RECIPES: dict[str, Recipe] = {
    "jordan": Recipe((_JORDAN,) * 5, "K. Jordan, Muon (2024); the default of torch.optim.Muon"),
    "you": Recipe(
        (
            (4.0848, -6.8946, 2.9270),
            (3.9505, -6.3029, 2.6377),
            (3.7418, -5.5913, 2.3037),
            (2.8769, -3.1427, 1.2046),
            (2.8366, -3.0525, 1.2012),
        ),
        "J. You; F. L. Cesista, leloykun.github.io/ponder/muon-opt-coeffs (2025)",
    ),
    "cans": Recipe(
        (
            (8.4703, -25.1081, 18.6293),
            (4.1828, -3.1087, 0.5806),
            (3.9619, -2.9541, 0.5630),
            (3.2866, -2.4647, 0.5074),
            (2.2737, -1.6447, 0.4162),
        ),
        "Grishina, Smirnov and Rakhuba, arXiv 2506.10935 (2025)",
    ),
    "polar-express-5": Recipe(_EXPRESS[:5], "Amsel et al., arXiv 2505.16932; article 10996, before the safety factor"),
    "polar-express-5/1.01": Recipe(
        _EXPRESS[:5], "the same, every step at x / 1.01 but the last", safety=1.01, last=False
    ),
    "polar-express-5/1.05": Recipe(
        _EXPRESS[:5], "the same, every step at x / 1.05 (Gram Newton-Schulz, 2026)", safety=1.05
    ),
    "polar-express-5-safer": Recipe(
        _SAFER, "modded-nanogpt (2025): safety 1.02, cushion, input divided by 1.02", divide=1.02
    ),
    "polar-express-5/1.01-all": Recipe(_EXPRESS[:5], "every step at x / 1.01, as several libraries do", safety=1.01),
    "polar-express-6/1.01": Recipe(_EXPRESS[:6], "arXiv 2505.16932, six steps", safety=1.01, last=False),
    "polar-express-6/1.05": Recipe(_EXPRESS[:6], "six steps at x / 1.05", safety=1.05),
    "polar-express-8": Recipe(_EXPRESS, "article 10996 (kexue.fm/archives/10996), before the safety factor"),
    "polar-express-8/1.01": Recipe(
        _EXPRESS, "arXiv 2505.16932, every step at x / 1.01 but the last", safety=1.01, last=False
    ),
    "polar-express-8/1.01-all": Recipe(_EXPRESS, "every step at x / 1.01, as several libraries do", safety=1.01),
    "polar-express-8/1.05": Recipe(_EXPRESS, "eight steps at x / 1.05", safety=1.05),
    "deepseek-8+2": Recipe((_JORDAN,) * 8 + ((2.0, -1.5, 0.5),) * 2, "DeepSeek-V4 report (2026)"),
    "aol-4": Recipe(
        (
            (4.0098, -7.0585, 2.4635),
            (3.4585, -5.5479, 2.5959),
            (2.7573, -3.2939, 1.4254),
            (2.7215, -3.0494, 1.3169),
        ),
        "Turbo-Muon, arXiv 2512.04632: made for another normalisation",
    ),
    "cubic5": Recipe(
        (
            (3.3656576, -3.3420992),
            (2.5744352, -1.4957376),
            (2.5368962, -1.4312570),
            (2.4418906, -1.2764040),
            (2.2230472, -0.9630650),
        ),
        "NVIDIA Emerging-Optimizers (2026), after arXiv 2606.00371: cubics for singular values above 7e-3",
    ),
    "su-5": Recipe(((3.3748, -4.6969, 2.1433),) * 5, "article 10922 (kexue.fm/archives/10922): one quintic, by Adam"),
    "you-6": Recipe(
        _over_1024(
            (3955, -8306, 5008),
            (3735, -6681, 3463),
            (3799, -6499, 3211),
            (4019, -6385, 2906),
            (2677, -3029, 1162),
            (2172, -1833, 682),
        ),
        "J. You (2025), as article 10922 gives it: six quintics",
    ),
    "su-6-x": Recipe(
        _over_1024(
            (4140, -7553, 3571),
            (3892, -6637, 2973),
            (3668, -6456, 3021),
            (3248, -6211, 3292),
            (2792, -5759, 3796),
            (3176, -5507, 4048),
        ),
        'article 10922, "Ours-X": the 50 worst of 10000 points',
    ),
    "su-6-x2": Recipe(
        _over_1024(
            (4059, -7178, 3279),
            (3809, -6501, 2925),
            (3488, -6308, 3063),
            (2924, -5982, 3514),
            (2439, -5439, 4261),
            (3148, -5464, 4095),
        ),
        'article 10922, "Ours-X2": the 200 worst points',
    ),
    "su-5-x3": Recipe(
        (
            (4.6182, -12.9582, 9.3299),
            (3.8496, -7.9585, 4.3052),
            (3.5204, -7.2918, 4.0606),
            (3.2067, -6.8243, 4.2802),
            (3.2978, -5.7848, 3.8917),
        ),
        'article 10922, "Ours-X3": five quintics',
    ),
    "pade-10": Recipe(
        ((15 / 8, -5 / 4, 3 / 8),) * 10,
        "the limit polynomial at every step; articles 10592 and 10996 (kexue.fm/archives/10592, /10996)",
    ),
}
"""Recipes for the sign, on singular values in (0, 1]."""

ROOT_RECIPES: dict[int, Recipe] = {
    1: Recipe(
        (
            (14.2975, -31.2203, 18.9214), (7.12258, -7.78207, 2.35989), (6.9396, -7.61544, 2.3195),
            (5.98456, -6.77016, 2.12571), (3.79109, -4.18664, 1.39555), (3.0, -3.0, 1.0),
        ), "article 11175 (kexue.fm/archives/11175)", stride=1,
    ),
    2: Recipe(
        (
            (7.42487, -18.3958, 12.8967), (3.48773, -2.33004, 0.440469), (2.77661, -2.07064, 0.463023),
            (1.99131, -1.37394, 0.387593), (15 / 8, -5 / 4, 3 / 8),
        ), "article 11175", stride=2,
    ),
    3: Recipe(
        (
            (5.05052, -13.5427, 10.2579), (2.31728, -1.06581, 0.144441), (1.79293, -0.913562, 0.186699),
            (1.56683, -0.786609, 0.220008), (14 / 9, -7 / 9, 2 / 9),
        ), "article 11175", stride=3,
    ),
    4: Recipe(
        (
            (3.85003, -10.8539, 8.61893), (1.80992, -0.587778, 0.0647852), (1.50394, -0.594516, 0.121161),
            (45 / 32, -9 / 16, 5 / 32),
        ), "article 11175", stride=4,
    ),
    5: Recipe(
        (
            (3.11194, -8.28217, 6.67716), (1.5752, -0.393327, 0.0380364), (1.3736, -0.44661, 0.0911259),
            (33 / 25, -11 / 25, 3 / 25),
        ), "article 11175", stride=5,
    ),
}  # fmt: skip
"""Tables for P^(s/r) by r, on eigenvalues of P in [1e-4, 1]: x = eigenvalue^(1/r)."""


def certify(name: str, lower: Number, upper: Number = 1.0) -> Schedule:
    """The recipe as a schedule with its proven error for 1 on [lower, upper], in exact arithmetic.

    >>> round(certify("jordan", 1e-2).error, 3), round(certify("polar-express-5-safer", 1e-3).error, 3)
    (0.318, 0.153)
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; there are {', '.join(RECIPES)}.")
    recipe = RECIPES[name]
    return certified(recipe.steps, (lower, upper), products=recipe.products)


def certify_root(r: int) -> Schedule:
    """The published table for r-th roots with its proven error for x -> 1 on [1e-4^(1/r), 1].

    >>> f"{certify_root(1).error:.2e}"
    '5.85e-04'
    """
    if r not in ROOT_RECIPES:
        raise ValueError(f"tables were published for r in {tuple(ROOT_RECIPES)}, got {r}.")
    return certified(ROOT_RECIPES[r].steps, (root_below(1e-4, r), 1.0), products=0.0, target="root")
