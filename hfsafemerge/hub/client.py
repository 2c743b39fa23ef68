"""The client of the Hub, and what it raises in words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal

from huggingface_hub import HfApi, get_token, is_offline_mode
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    NotASafetensorsRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SafetensorsParsingError,
)
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # the one import that is right in every version

from hfsafemerge import __version__
from hfsafemerge.errors import CheckpointError, HubError
from hfsafemerge.hub.redacting import redact_log, without_token
from hfsafemerge.hub.waiting import bound_requests

RepoType = Literal["model", "dataset"]
XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})\b")
ONLINE_FIRST = "Unset it and run the same command once; what has been checked and fetched then works offline."


@lru_cache
def api() -> HfApi:
    """The client of this process; it reads the endpoint and the token from the environment, as `hf` does. Its log holds no secret."""
    redact_log()
    return HfApi(library_name="hfsafemerge", library_version=__version__)


@contextmanager
def hub_errors(what: str, *, offline: str = "It is needed from the Hub") -> Iterator[None]:
    """Turn what the Hub's clients raise into one sentence that says what to do. Within, no request waits for ever.

    Args:
        what: a repository, or what else was asked for.
        offline: why it can't be done with HF_HUB_OFFLINE set.
    """
    login = "" if get_token() else " You are not signed in: run `hf auth login` or set HF_TOKEN."
    bound_requests()
    try:
        yield
    except GatedRepoError as error:  # before the next one, which it is a kind of
        raise HubError(
            f"{what} is gated, and you have not been granted access. Ask for it on its page, {_page(error, what)}.{login}"
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(f"{what} does not exist at {api().endpoint}, or is private.{login}") from error
    except RevisionNotFoundError as error:
        raise HubError(f"{what}: there is no such branch, tag or commit. Leave the revision out, or name one that exists.") from error
    except LocalEntryNotFoundError as error:  # the client's word when it got no answer that it could use
        if is_offline_mode():
            raise HubError(f"{what}: {offline}, and HF_HUB_OFFLINE is set. {ONLINE_FIRST}") from error
        cause = error.__cause__
        if cause is not None and (status := status_of(cause)) is not None:
            raise _refusal(what, status, cause, login) from error
        raise HubError(
            f"Can't reach {api().endpoint} for {what}, and it is not in the cache. Check the connection, or HF_ENDPOINT."
        ) from error
    except LocalTokenNotFoundError as error:
        raise HubError(f"{what} needs a token. You are not signed in: run `hf auth login` or set HF_TOKEN.") from error
    except (EntryNotFoundError, NotASafetensorsRepoError) as error:
        raise HubError(f"{what}: a file is missing: {first_line(error)}") from error
    except SafetensorsParsingError as error:
        raise CheckpointError(f"{what}: its weights have a malformed header: {first_line(error)}") from error
    except HfHubHTTPError as error:
        raise _refusal(what, status_of(error), error, login) from error
    except OfflineModeIsEnabled as error:
        raise HubError(f"{what}: {offline}, and HF_HUB_OFFLINE is set. {ONLINE_FIRST}") from error
    except (httpx.HTTPError, ConnectionError) as error:
        if (status := status_of(error)) is not None:
            raise _refusal(what, status, error, login) from error
        if is_offline_mode():
            raise HubError(f"{what}: {offline}, and HF_HUB_OFFLINE is set. {ONLINE_FIRST}") from error
        raise HubError(f"Can't reach {api().endpoint} for {what}: {first_line(error)}. Check the connection, or HF_ENDPOINT.") from error
    except RuntimeError as error:
        if (status := status_of(error)) is None:
            raise
        raise _refusal(what, status, error, login) from error
    except OSError as error:
        if "Consistency check failed" not in str(error):  # all that the client says of an answer that was cut short
            raise
        raise HubError(f"{what}: the connection ended before the whole file had come. Run the same command again.") from error


def _refusal(what: str, status: int | None, error: BaseException, login: str) -> HubError:
    return HubError(f"The Hub refused {what} ({status or 'no status'}): {first_line(error)}{login if status in (401, 403) else ''}")


def _page(error: GatedRepoError, what: str) -> str:
    """Where one asks for access: the page of the repository has the form."""
    repo_id = error.repo_id or what.split("@")[0].split("+")[0]
    return f"{api().endpoint}/{'datasets/' if error.repo_type == 'dataset' else ''}{repo_id}"


def status_of(error: BaseException) -> int | None:
    """The status of an answer that an error tells of, if it does. Xet's says it in its text alone, whatever kind of error it is."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code if error.response is not None else None
    found = XET_STATUS.search(str(error)) if isinstance(error, ConnectionError | RuntimeError) else None
    return int(found[1]) if found else None


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without the token; of the client's around an upload, what that was raised from, too."""
    said = str(error)
    if said.startswith("Error while uploading") and error.__cause__ is not None:
        return f"{without_token(said.strip().splitlines()[0]).rstrip('. ')}: {first_line(error.__cause__)}"
    if isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code == 400 and error.server_message:
        said = error.server_message  # of these the client's own first line says no more than that it was a bad request
    text = next(iter(said.strip().splitlines()), type(error).__name__)
    return without_token(text)  # which some faults of HTTP clients quote, when it holds what no header may hold
