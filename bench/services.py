"""New connections to a ClusterIP against the same server's own address."""

from __future__ import annotations

from bench.figures import Figure, figure
from tests.system.service_rate import ratios


def connections() -> list[Figure]:
    """Beside 10 and beside 5,000 Services."""
    return [
        figure(
            f"connections/s to a ClusterIP of {count:,} Services",
            values,
            "ratio",
            against="the server's own address",
            bar=">= 0.98",
        )
        for count, values in ratios((10, 5000)).items()
    ]
