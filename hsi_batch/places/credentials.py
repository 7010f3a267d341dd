"""Settings of S3 from the usual places: the environment first, then the files in ``~/.aws``."""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["aws_settings"]


def aws_settings() -> dict[str, Any]:
    """Arguments of obstore that its own reading of the environment leaves out.

    Keys of a profile are handed over by a function, so that they are in no printed or pickled
    configuration. Without keys anywhere obstore asks the machine it runs on for its role.
    """
    environment = os.environ
    profile = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE") or "default"
    held = _section("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile)
    said = _section(
        "AWS_CONFIG_FILE", "config", profile if profile == "default" else f"profile {profile}"
    )
    settings: dict[str, Any] = {}
    endpoint = (
        environment.get("AWS_ENDPOINT_URL_S3")
        or environment.get("AWS_ENDPOINT_URL")
        or environment.get("AWS_ENDPOINT")
        or said.get("endpoint_url")
    )
    if endpoint:
        settings["endpoint"] = endpoint
        # Other servers than Amazon's seldom have a name for each bucket.
        settings["virtual_hosted_style_request"] = False
        if endpoint.startswith("http://"):
            settings["client_options"] = {"allow_http": True}
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    settings["region"] = region or said.get("region") or "us-east-1"
    keys = {**said, **held}
    if "AWS_ACCESS_KEY_ID" not in environment and {
        "aws_access_key_id",
        "aws_secret_access_key",
    } <= set(keys):
        settings["credential_provider"] = _provider(keys)
    return settings


def _provider(keys: Mapping[str, str]) -> Callable[[], dict[str, Any]]:
    def credentials() -> dict[str, Any]:
        return {
            "access_key_id": keys["aws_access_key_id"],
            "secret_access_key": keys["aws_secret_access_key"],
            "token": keys.get("aws_session_token"),
            "expires_at": None,
        }

    return credentials


def _section(variable: str, name: str, section: str) -> dict[str, str]:
    file = Path(os.environ.get(variable) or Path.home() / ".aws" / name).expanduser()
    parser = configparser.RawConfigParser()
    try:
        parser.read(file, encoding="utf-8")
        return dict(parser[section])
    except (OSError, KeyError, ValueError, configparser.Error):
        return {}
