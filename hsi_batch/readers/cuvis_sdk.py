"""Cubert's SDK as the ``.cu3s`` reader sees it: found, started once, its failures made ours.

Nothing of ``cuvis`` is imported before :func:`load_sdk` is called.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from hsi_batch.errors import SdkMissingError, SourceError

__all__ = ["Sdk", "load_sdk"]

T = TypeVar("T")

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_our_call = threading.local()

_OLDEST = (3, 6)
_INSTALL = 'pip install "hsi-batch[cu3s]"'
_FOLDER = "the folder of the Cuvis SDK that holds libcuvis.so"

#: Functions without which nothing can be read; a helper of the extension that lacks one of them
#: ends the process instead of raising.
_NEEDED = frozenset(
    {
        "cuvis_get_last_error_msg",
        "cuvis_init",
        "cuvis_session_file_load",
        "cuvis_session_file_get_size",
        "cuvis_session_file_get_mesu",
        "cuvis_session_file_get_reference_mesu",
        "cuvis_session_file_free",
        "cuvis_proc_cont_create_from_session_file",
        "cuvis_proc_cont_set_args",
        "cuvis_proc_cont_apply",
        "cuvis_proc_cont_has_reference",
        "cuvis_proc_cont_is_capable",
        "cuvis_proc_cont_free",
        "cuvis_mesu_metadata_allocate",
        "cuvis_mesu_metadata_free",
        "cuvis_measurement_get_metadata",
        "cuvis_measurement_get_data_count",
        "cuvis_measurement_get_data_info",
        "cuvis_measurement_get_data_image",
        "cuvis_measurement_get_data_string",
        "cuvis_measurement_get_data_string_length",
        "cuvis_measurement_get_data_gps",
        "cuvis_measurement_get_data_sensor_info",
        "cuvis_measurement_clear_cube",
        "cuvis_measurement_free",
    }
)


@dataclass(frozen=True)
class Sdk:
    """The loaded and started SDK of this process.

    Attributes
    ----------
    cuvis : module
        The wrapper package.
    versions : dict of str
        ``wrapper``, ``library`` (its banner) and ``built_against`` (what the wrapper expected).
    failures : tuple of exception types
        Everything the wrapper raises when the library refuses or delivers nonsense.
    process : int
        Where it was started.
    """

    cuvis: Any
    versions: dict[str, str]
    failures: tuple[type[Exception], ...]
    process: int

    def call(
        self,
        what: str,
        function: Callable[..., T],
        *arguments: Any,
        path: str,
        frame: int | None = None,
        hint: str | None = None,
    ) -> T:
        """Call the wrapper.

        Parameters
        ----------
        what : str
            What is attempted, to complete "the Cuvis SDK could not ...".
        function, *arguments
            The call.
        path, frame, hint
            Where an error is located, and what to do about it.

        Raises
        ------
        hsi_batch.errors.SourceError
            In place of any failure of the wrapper.
        """
        _our_call.now = True
        try:
            return function(*arguments)
        except self.failures as error:
            reason = _reason(error)
        finally:
            _our_call.now = False
        # Outside the handler, so that the SDK's exception is neither cause nor context: it cannot
        # be unpickled without the SDK, and its traceback keeps handles alive.
        raise SourceError(
            f"the Cuvis SDK could not {what} ({reason}).", path=path, frame=frame, hint=hint
        )

    def ask(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Call the wrapper for something that a recording need not have; None if it fails."""
        try:
            return self.call("answer", function, *arguments, path="")
        except SourceError:
            return None


def load_sdk(path: str) -> Sdk:
    """Import ``cuvis`` and start the SDK, once in this process.

    Parameters
    ----------
    path : str
        The file that needs it, for the error text.

    Raises
    ------
    hsi_batch.errors.SdkMissingError
        The package or the library is absent, too old, or does not start.
    hsi_batch.errors.SourceError
        The process was forked from one that had started the SDK; its threads are gone.
    """
    try:
        with _lock:
            sdk = _start()
    except SdkMissingError as error:
        error.path = path
        raise
    if sdk.process != os.getpid():
        raise SourceError(
            "this process was forked from one that already uses the Cuvis SDK, whose threads do "
            "not survive a fork.",
            path=path,
            hint="Start workers by spawn or forkserver.",
        )
    return sdk


@cache
def _start() -> Sdk:
    cuvis = _import()
    cuvis.cuvis_aux.logging = _ErrorLog(logging)
    binding = cuvis.binding.info()
    lacking = sorted(_NEEDED.intersection(binding.missing_symbols))
    if lacking:
        raise SdkMissingError(
            f"The Cuvis library {binding.library_path} ({binding.library_version or 'no version'}) "
            f"lacks {', '.join(lacking)}; install the SDK that this wrapper was built for "
            f"({binding.built_against or 'no version'})."
        )
    sdk = Sdk(
        cuvis=cuvis,
        versions={
            "wrapper": str(cuvis.General.wrapper_version()),
            "library": binding.library_version,
            "built_against": binding.built_against,
        },
        failures=(
            cuvis.cuvis_aux.SDKException,
            ArithmeticError,
            AttributeError,
            LookupError,
            OSError,
            RuntimeError,
            SystemError,
            TypeError,
            ValueError,
        ),
        process=os.getpid(),
    )
    _init(sdk)
    _log.debug("Cuvis SDK started: %s", sdk.versions)
    return sdk


def _import() -> Any:
    """Import the wrapper, or say in one sentence what is missing."""
    try:
        version = metadata.version("cuvis")
    except metadata.PackageNotFoundError:
        version = ""
    if not version:
        raise SdkMissingError(
            f"Reading .cu3s files needs the cuvis package: {_INSTALL}, install the Cuvis SDK, and "
            f"set the environment variable CUVIS to {_FOLDER}."
        )
    number = re.match(r"(\d+)\.(\d+)", version)
    # Older ones end the process when CUVIS is unset, or when a helper fails.
    if number and (int(number[1]), int(number[2])) < _OLDEST:
        raise SdkMissingError(
            f"cuvis {version} is too old to read .cu3s files safely, 3.6 or newer is needed: "
            f"{_INSTALL}, and the Cuvis SDK of the same version."
        )
    # It is read once, at the first import.
    if "CUVIS" not in os.environ and "cuvis" not in sys.modules:
        raise SdkMissingError(
            "The environment variable CUVIS is not set: install the Cuvis SDK and set CUVIS to "
            f"{_FOLDER}, for every worker."
        )
    try:
        with warnings.catch_warnings():
            # Missing functions are warned about; those that matter are checked afterwards.
            warnings.simplefilter("ignore")
            return importlib.import_module("cuvis")
    except ModuleNotFoundError as error:
        reason = f"The cuvis package cannot be imported ({_reason(error)})"
    except (ImportError, AttributeError, OSError, RuntimeError, SystemExit) as error:
        reason = f"The Cuvis library cannot be loaded ({_reason(error)})"
    raise SdkMissingError(
        f"{reason}: check {_INSTALL}, that the Cuvis SDK is installed, and that the environment "
        f"variable CUVIS ({os.environ.get('CUVIS')!r}) is {_FOLDER}."
    )


def _init(sdk: Sdk) -> None:
    """Start the SDK; the first start of a process is the one that counts."""
    folder = os.environ.get("CUVIS_SETTINGS")
    if folder is not None and not Path(folder).is_dir():
        raise SdkMissingError(
            f"The environment variable CUVIS_SETTINGS is {folder!r}, which is not a folder: set "
            "it to the settings folder of the Cuvis SDK, or unset it."
        )
    # The wrapper's own default is the current folder, whatever lies there; a folder that is wrong
    # is reported to make all processing fail. Its default log level is debug.
    settings = sdk.cuvis.SdkSettings() if folder is None else folder
    try:
        sdk.call("start", sdk.cuvis.init, settings, "warning", path="")
    except SourceError as error:
        reason = error.message
    else:
        return
    raise SdkMissingError(f"{reason[0].upper()}{reason[1:-1]}: check CUVIS and CUVIS_SETTINGS.")


def _reason(error: BaseException) -> str:
    """Return class and text of an exception in one line; the text is the SDK's and only a hint."""
    detail = getattr(error, "message", None) or error
    text = " ".join(str(detail).encode("utf-8", "replace").decode("utf-8").split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _ErrorLog:
    """Stands in for the ``logging`` that ``cuvis.cuvis_aux`` imported.

    There every exception is sent to the root logger as it is built: a stderr handler appears if
    there was none, and a line "NoneType: None". Ours are reported once, as our errors; those of
    other code in this process go on as before.
    """

    def __init__(self, original: Any) -> None:
        self._original = original

    def exception(self, message: object, *arguments: object) -> None:
        """Take the place of ``logging.exception``."""
        if getattr(_our_call, "now", False):
            _log.debug("Cuvis SDK: %s", message)
        else:
            self._original.exception(message, *arguments, stacklevel=2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)
