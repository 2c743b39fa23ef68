"""What a stage emits: its energy, measured with codecarbon, times what the country's electricity emits."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hfsafemerge.errors import RecipeError


@contextmanager
def measured(country: str | None, tell: Callable[[float], None]) -> Iterator[None]:
    """Measure what this process takes in the block.

    Args:
        country: the three-letter code of where it runs (ISO 3166); None measures nothing.
        tell: told the grams of CO2 equivalents, however the block ends. Under torchrun it is not: the other processes take energy too.

    Raises:
        RecipeError: codecarbon is not installed, or there is no such country.
    """
    if country is None:
        yield
        return
    try:
        import pycountry  # which codecarbon brings along
        from codecarbon import OfflineEmissionsTracker
    except ImportError as error:
        raise RecipeError(
            "compute.country asks for emissions, which codecarbon measures. Install it with pip install 'hfsafemerge[emissions]', or leave "
            "compute.country out."
        ) from error
    if pycountry.countries.get(alpha_3=country) is None:  # codecarbon would take the world's mean and say nothing
        raise RecipeError(f"compute.country is {country!r}, which is no country. Write its code of three letters, such as DEU or USA.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield
        return
    tracker = OfflineEmissionsTracker(
        country_iso_code=country, tracking_mode="process", save_to_file=False, allow_multiple_runs=True, log_level="critical"
    )
    tracker.start()
    try:
        yield
    finally:
        tell(1000 * (tracker.stop() or 0.0))
