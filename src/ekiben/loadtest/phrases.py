"""Figures as people read them. Pure."""


def ms(value: float | None) -> str:
    """Three digits of a time in ms, without the unit; None is without end."""
    if value is None:
        return "∞"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percent(share: float) -> str:
    return f"{_hundredths(share)} %"


def percent_range(low: float, high: float) -> str:
    return f"{_hundredths(low)}–{_hundredths(high)} %"


def _hundredths(share: float) -> str:
    """Three digits, but near 100 as many as show that it is not quite 100."""
    return f"{share * 100:.2f}" if 0.99 < share < 1 else f"{share * 100:.3g}"


def change(share: float) -> str:
    """A difference as a share of what it differs from, with its sign: 0.083 is `+8.3 %`."""
    return f"{share * 100:+.3g} %"
