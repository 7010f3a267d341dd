"""Places: local paths and URLs of object and transactional stores, with the same verbs."""

from hsi_batch.places.place import (
    Place,
    absolute,
    beside,
    gathers,
    place,
    public,
    read_anew,
    remove_tree,
    stamp,
    zarr_store,
)
from hsi_batch.places.remote import RemotePlace
from hsi_batch.places.url import at_version, is_url, normal_url, split_version

__all__ = [
    "Place",
    "RemotePlace",
    "absolute",
    "at_version",
    "beside",
    "gathers",
    "is_url",
    "normal_url",
    "place",
    "public",
    "read_anew",
    "remove_tree",
    "split_version",
    "stamp",
    "zarr_store",
]
