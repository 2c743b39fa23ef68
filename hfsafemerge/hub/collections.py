"""A collection on the Hub that ties together what belongs together: a model, its data, its Space."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Literal

from huggingface_hub import Collection
from huggingface_hub.errors import HfHubHTTPError

from hfsafemerge.hub import client
from hfsafemerge.hub.retrying import Notify, persist, say_nothing

ItemType = Literal["model", "dataset", "space"]
SLUG = re.compile(r"[^/]+/.+-[0-9a-f]{24}")


def collect(name: str, namespace: str, items: Sequence[tuple[str, ItemType]], *, private: bool, notify: Notify = say_nothing) -> str:
    """See that a collection holds these items, each once; what else is in it stays, and so do its notes and its order.

    Args:
        name: the slug of a collection, such as me/merges-64f9a55bb3115b4f513ec026, or the title of one in the namespace, which is
            created where there is none.
        namespace: whose collection one is that goes by its title.
        items: repository ids and what they are.
        private: whether a new one is private; one that stands stays as it is.
        notify: is told of faults.

    Returns:
        Its address.

    Raises:
        HubError: there is no collection of that slug, or the Hub refused, or the faults did not pass.
    """
    found = persist(lambda: _find(name, namespace, private), notify)
    held = {(item.item_id, item.item_type) for item in found.items}
    for item in items:
        if item not in held:
            persist(partial(_add, found.slug, *item), notify)
    return str(found.url)


def _find(name: str, namespace: str, private: bool) -> Collection:
    api = client.api()
    with client.hub_errors(f"the collection {name}"):
        if SLUG.fullmatch(name):
            return api.get_collection(name)
        for known in api.list_collections(owner=namespace):  # one whose creation was not confirmed is among them
            if known.title == name:
                return api.get_collection(known.slug)  # the list shows only the first few items of each
        return api.create_collection(name, namespace=namespace, private=private, exists_ok=True)


def _add(slug: str, item_id: str, item_type: ItemType) -> None:
    with client.hub_errors(f"{item_id} in the collection {slug}"):
        try:
            client.api().add_collection_item(slug, item_id, item_type)
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code != 409:  # 409: it is in already
                raise
