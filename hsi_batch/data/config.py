"""The data part of a trainrun, and the module that it describes."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hsi_batch.data.archive import ArchiveDataModule
from hsi_batch.data.module import DataModule
from hsi_batch.data.recordings import MultiCu3sDataModule, SingleCu3sDataModule
from hsi_batch.data.splits import DataSplitConfig
from hsi_batch.errors import ConfigError, HsiBatchWarning, did_you_mean

__all__ = ["DataConfig", "data_module"]

_MODULES: Mapping[str, Callable[..., DataModule]] = {
    "cu3s": SingleCu3sDataModule,
    "cu3s_multi": MultiCu3sDataModule,
    "archive": ArchiveDataModule,
}
#: Settings of other readers, which change no pixel.
_WITHOUT_EFFECT = (
    "cuda_cubes",
    "max_open_sessions",
    "read_ahead",
    "read_threads",
    "samples_per_frame",
    "sdk_cuda",
    "source_coherent_batches",
)


class DataConfig(BaseModel):
    """Which data module, and its arguments.

    Arguments may also stand beside the other keys, as the seed pages write them.

    Parameters
    ----------
    data_module : {"cu3s", "cu3s_multi", "archive"}
        What the frames come from.
    batch_size : int
        Frames, or patches, per batch.
    num_workers : int
        Threads that read the batches of a training; 2 where it is 0.
    params : dict
        Arguments of the module.
    splits : DataSplitConfig, optional
        Which frames train, validate and test.

    Examples
    --------
    >>> config = DataConfig(data_module="archive", params={"archive": "archive.zarr"})
    >>> config.batch_size
    1
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    data_module: str = "cu3s"
    batch_size: int = Field(default=1, ge=1)
    num_workers: int = Field(default=0, ge=0)
    params: dict[str, Any] = Field(default_factory=dict)
    splits: DataSplitConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        module = _MODULES.get(str(value.get("data_module", "cu3s")))
        if module is None:
            return value
        names = {*inspect.signature(module).parameters} - {*cls.model_fields}
        beside = {key: value[key] for key in value if key in names}
        if not beside:
            return value
        rest = {key: found for key, found in value.items() if key not in beside}
        return {**rest, "params": {**beside, **rest.get("params", {})}}


def data_module(config: DataConfig) -> DataModule:
    """The data module that a configuration describes.

    Raises
    ------
    hsi_batch.errors.ConfigError
        There is no such module, or it has no such argument.
    """
    if config.data_module not in _MODULES:
        raise ConfigError(
            f"there is no data module {config.data_module!r}."
            f"{did_you_mean(config.data_module, _MODULES)}",
            hint=f"There are {', '.join(_MODULES)}.",
        )
    params = dict(config.params)
    ignored = sorted(set(params) & set(_WITHOUT_EFFECT))
    for name in ignored:
        del params[name]
    if ignored:
        warnings.warn(
            f"{', '.join(ignored)}: without effect here.",
            HsiBatchWarning,
            stacklevel=2,
        )
    module = _MODULES[config.data_module]
    if config.data_module == "cu3s" and "data_dir" in params and "cu3s_file_path" not in params:
        # The released module of this name takes folders too.
        module, params["directory"] = MultiCu3sDataModule, params.pop("data_dir")
    known = [name for name in inspect.signature(module).parameters if name != "splits"]
    unknown = [name for name in params if name not in known]
    if unknown:
        raise ConfigError(
            f"the data module {config.data_module} has no parameter {unknown[0]!r}."
            f"{did_you_mean(unknown[0], known)}",
            hint=f"It has {', '.join(known)}.",
        )
    shared = {"batch_size": config.batch_size, "num_workers": config.num_workers}
    try:
        return module(**{**shared, **params}, splits=config.splits)
    except TypeError as error:
        raise ConfigError(
            f"the data module {config.data_module}: {error}.", hint="Correct `params`."
        ) from None
