"""What a ``.cu3s`` session and its measurements say of themselves, in JSON types."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from hsi_batch.readers.cuvis_sdk import Sdk
from hsi_batch.readers.protocol import FrameInfo

__all__ = ["frame_info", "frame_metadata", "session_metadata"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def frame_info(measurement: Any) -> FrameInfo:
    """Return time, number and exposure of a ``cuvis.Measurement``."""
    return FrameInfo(
        time_ms=_milliseconds(measurement.capture_time),
        frame_id=int(measurement.frame_id),
        integration_time_ms=_number(measurement.integration_time),
    )


def frame_metadata(measurement: Any) -> dict[str, Any]:
    """Return all of a measurement that is the same for every camera.

    GPS and sensor entries are left out: where the library cannot read them the wrapper hands out
    zeros without a word.
    """
    info = frame_info(measurement)
    calibrated = measurement.factory_calibration
    if calibrated is not None and _milliseconds(calibrated) is None:
        calibrated = None
    distance = _number(measurement.distance)
    return {
        "name": _text(measurement.name),
        "comment": _text(measurement.comment),
        "product_name": _text(measurement.product_name),
        "serial_number": _text(measurement.serial_number),
        "assembly": _text(measurement.assembly),
        "capture_time_ms": info.time_ms,
        "frame_id": info.frame_id,
        "integration_time_ms": info.integration_time_ms,
        "averages": int(measurement.averages),
        "distance_mm": distance if distance is not None and distance >= 0 else None,
        # Only the day means anything: its hour is that of the machine which wrote the file.
        "factory_calibration": calibrated
        and _milliseconds(calibrated)
        and f"{calibrated:%Y-%m-%d}",
        "flags": list(measurement.measurement_flags.strings()),
        "session": {
            "name": _text(measurement.session_info.name),
            "number": int(measurement.session_info.session_number),
            "sequence": int(measurement.session_info.sequence_number),
        },
    }


def session_metadata(sdk: Sdk, session: Any) -> dict[str, Any]:
    """Return what the file as a whole says; None for what was not recorded."""
    items = sdk.cuvis.SessionItemType
    operation = sdk.ask(lambda: session.operation_mode)
    return {
        "fps": _number(sdk.ask(lambda: session.fps)),
        "hash": _text(sdk.ask(lambda: session.hash)),
        "operation_mode": None if operation is None else str(operation.name),
        "frames_with_dropped": sdk.ask(session.get_size, items.all_frames),
        "sdk": dict(sdk.versions),
    }


def _milliseconds(moment: datetime) -> int | None:
    """Milliseconds since 1970 UTC; None for zero, which is how the SDK says that it has none."""
    if moment.tzinfo is None:  # older wrappers mean UTC and do not say so
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1) or None


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _text(value: str | None) -> str | None:
    """Valid Unicode (the SDK hands out bytes in any encoding), None if empty."""
    if not value:
        return None
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
