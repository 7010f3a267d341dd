"""URLs of stores: telling them from paths, and refusing those that carry credentials."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from hsi_batch.errors import ConfigError

__all__ = [
    "VERSIONED",
    "WORKING",
    "at_version",
    "is_url",
    "joined",
    "name_of",
    "normal_url",
    "split_version",
]

#: Two letters at least: ``C:/`` is a drive.
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):(/+)(.*)$", re.DOTALL)
#: Schemes whose URLs name no host; ``pathlib`` squeezes the slashes of all of them.
_HOSTLESS = ("file", "local", "memory", "icechunk+file")
#: Before the scheme of a transactional store.
VERSIONED = "icechunk+"
#: Begins the version that a run is writing; no name of a tag or a snapshot.
WORKING = "~run-"


def is_url(text: str | os.PathLike[str]) -> bool:
    """Whether this is a URL, and not a path.

    Examples
    --------
    >>> is_url("s3://bucket/a.zarr"), is_url("/data/a.zarr"), is_url("C:/a.zarr")
    (True, False, False)
    """
    return _URL.match(os.fspath(text)) is not None


def normal_url(text: str | os.PathLike[str]) -> str:
    """The URL as it is written everywhere, also if ``pathlib`` took a slash from it.

    Raises
    ------
    hsi_batch.errors.ConfigError
        It carries a user, a password or a signature, or names nothing.

    Examples
    --------
    >>> normal_url("s3:/bucket/a.zarr/"), normal_url("file:/data/a.zarr")
    ('s3://bucket/a.zarr', 'file:///data/a.zarr')
    """
    match = _URL.match(os.fspath(text))
    assert match is not None, "asked only of URLs"
    scheme, slashes, rest = match[1].lower(), match[2], match[3].rstrip("/")
    hostless = scheme in _HOSTLESS or len(slashes) > 2
    url = f"{scheme}://{'/' if hostless else ''}{rest}"
    parts = urlsplit(url)
    body, version = split_version(url)
    if "@" in parts.netloc and not version:
        bare = parts.netloc.rpartition("@")[2]
    elif "@" in urlsplit(body).netloc or parts.query or parts.fragment:
        bare = urlsplit(body).netloc.rpartition("@")[2]
    else:
        if not rest.strip("/"):
            raise ConfigError(
                "this URL names no store.", path=url, hint="Write it like s3://bucket/name.zarr."
            )
        return url
    raise ConfigError(
        "URLs with a user, a password, a query or a fragment are refused: what they carry would be"
        " kept with the results.",
        path=f"{scheme}://{bare}{parts.path.rpartition('@')[0] or parts.path}",
        hint="Give credentials by the environment (AWS_ACCESS_KEY_ID and so on) or ~/.aws.",
    )


def split_version(url: str) -> tuple[str, str]:
    """Split ``icechunk+s3://bucket/a@VERSION`` into the URL and the version; empty without one.

    Examples
    --------
    >>> split_version("icechunk+s3://bucket/a@VY76P925PRY57WFEK410")
    ('icechunk+s3://bucket/a', 'VY76P925PRY57WFEK410')
    """
    if not url.startswith(VERSIONED):
        return url, ""
    body, at, version = url.rpartition("@")
    return (body, version) if at and "/" not in version else (url, "")


def joined(url: str, suffix: str) -> str:
    """The URL of something beside a store, in the storage below a transactional one."""
    return split_version(url)[0].removeprefix(VERSIONED) + suffix


def name_of(url: str) -> str:
    """The last part of a URL."""
    return split_version(url)[0].rstrip("/").rpartition("/")[2]


def at_version(where: str | os.PathLike[str], version: str) -> str:
    """The URL of a version of a store.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The store keeps no versions.

    Examples
    --------
    >>> at_version("icechunk+s3://bucket/a", "v2")
    'icechunk+s3://bucket/a@v2'
    """
    text = normal_url(where) if is_url(where) else os.fspath(where)
    if not text.startswith(VERSIONED):
        raise ConfigError(
            "this store keeps no versions.",
            path=text,
            hint="Stores at icechunk+file:// and icechunk+s3:// do.",
        )
    return f"{split_version(text)[0]}@{version}"
