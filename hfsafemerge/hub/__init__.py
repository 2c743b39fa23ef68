"""The Hub: what a model is before its weights are fetched, the fetching, and the only code that writes to the Hub."""

from hfsafemerge.hub.client import RepoType, api, hub_errors
from hfsafemerge.hub.collections import ItemType, collect
from hfsafemerge.hub.committing import LARGE, Progress, goes_to_lfs
from hfsafemerge.hub.dataset_rows import pull_dataset, row_files, rows
from hfsafemerge.hub.downloading import Tell, tell_nothing
from hfsafemerge.hub.fetching import SMALL_FILES, fetch, pull, pull_adapter, resolve
from hfsafemerge.hub.finding import FoundModel, find_model
from hfsafemerge.hub.listing import bytes_to_fetch, listing, storage
from hfsafemerge.hub.lookup import Access, Facts, look_up, require_access
from hfsafemerge.hub.places import Place, is_missing
from hfsafemerge.hub.repositories import check_can_write
from hfsafemerge.hub.retrying import Notify, say_nothing
from hfsafemerge.hub.small_files import read_json
from hfsafemerge.hub.targets import Outlook, check_collection, check_target, user_name
from hfsafemerge.hub.writing import Pushed, propose, publish

__all__ = [
    "LARGE",
    "SMALL_FILES",
    "Access",
    "Facts",
    "FoundModel",
    "ItemType",
    "Notify",
    "Outlook",
    "Place",
    "Progress",
    "Pushed",
    "RepoType",
    "Tell",
    "api",
    "bytes_to_fetch",
    "check_can_write",
    "check_collection",
    "check_target",
    "collect",
    "fetch",
    "find_model",
    "goes_to_lfs",
    "hub_errors",
    "is_missing",
    "listing",
    "look_up",
    "propose",
    "publish",
    "pull",
    "pull_adapter",
    "pull_dataset",
    "read_json",
    "require_access",
    "resolve",
    "row_files",
    "rows",
    "say_nothing",
    "storage",
    "tell_nothing",
    "user_name",
]
