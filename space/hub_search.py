"""Repositories of the Hub, found while one types."""

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # the one import that is right in every version

LIMIT = 10
SHORTEST = 2  # letters; below them every model would be found


def search_models(typed: str, token: str | None) -> list[str]:
    """The ids of at most 10 models that write text and have safetensors, the most downloaded first.

    Args:
        typed: part of a name.
        token: of whom it is for, who then finds private models as well; without one only public ones are found.

    Returns:
        Nothing for fewer than 2 letters, or where the Hub can't be reached: what is typed can always be used as it is.
    """
    if len(typed.strip()) < SHORTEST:
        return []
    try:
        found = HfApi(library_name="hfsafemerge").list_models(
            search=typed.strip(), filter=["text-generation", "safetensors"], sort="downloads", limit=LIMIT, token=token or False
        )
        return [model.id for model in found]
    except (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled, OSError):
        return []
