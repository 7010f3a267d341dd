"""What the figures depend on: processor, BLAS, versions, load."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["described"]

#: Instructions that decide which kernels are fast.
_FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
)
_PACKAGES = (
    "hsi-batch", "numpy", "scipy", "numba", "torch", "zarr", "numcodecs", "dask", "distributed",
    "spectral", "scikit-learn", "dask-ml", "cuvis-ai", "cuvis-ai-core",
)  # fmt: skip


def described() -> dict[str, str]:
    """Names and values, for the head of the report."""
    import numpy as np
    import torch
    from threadpoolctl import threadpool_info

    from hsi_batch.cluster import cores
    from hsi_batch.engine.worker import environment
    from hsi_batch.statistics import kernels

    np.dot(np.ones((2, 2)), np.ones((2, 2)))
    flags = _flags()
    blas = [
        f"{i['internal_api']} {i['version']} {i.get('architecture', '')}".strip()
        for i in threadpool_info()
        if i["user_api"] == "blas"
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": f"{environment()['cpu']}, {cores()} cores, {memory:.0f} GiB",
        "instructions": ", ".join(f for f in _FEATURES if f in flags) or "unknown",
        "load before the run": f"{os.getloadavg()[0]:.1f}",
        "BLAS of numpy": "; ".join(dict.fromkeys(blas)),
        "OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE", "not set"),
        "BLAS of torch": "MKL" if torch.backends.mkl.is_available() else "not MKL",
        "integer kernel": kernels.kernel_name(),
        "Python": platform.python_version(),
        "versions": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
    }


def _flags() -> set[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return set(line.split(":", 1)[1].split())
    except OSError:
        pass
    return set()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(absent)"
