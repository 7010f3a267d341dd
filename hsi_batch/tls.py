"""Encrypted clusters: certificates that are named, or made for one run."""

from __future__ import annotations

from pathlib import Path

from distributed.security import Security
from pydantic import BaseModel, ConfigDict

from hsi_batch.errors import ConfigError

__all__ = ["SecurityConfig", "handed_over", "temporary"]

_ROLES = ("client", "scheduler", "worker")
_ENVIRONMENT = "DASK_DISTRIBUTED__COMM__"


class SecurityConfig(BaseModel):
    """Files of a TLS connection; each party must show a certificate of this authority.

    Attributes
    ----------
    ca_file : str
        Certificate of the authority (PEM).
    cert, key : str
        Certificate and private key of this client (PEM).
    """

    model_config = ConfigDict(extra="forbid")

    ca_file: str
    cert: str
    key: str

    def to_dask(self) -> Security:
        """For a client; nothing but TLS is spoken then."""
        return Security(
            require_encryption=True,
            tls_ca_file=self.ca_file,
            tls_client_cert=self.cert,
            tls_client_key=self.key,
        )


def temporary() -> Security:
    """A certificate that is its own authority, in memory, for the length of a run.

    Raises
    ------
    hsi_batch.errors.ConfigError
        The package that makes certificates is not installed.
    """
    try:
        made: Security = Security.temporary()
    except ImportError:
        raise ConfigError(
            "security: temporary certificates need the package cryptography.",
            hint="pip install 'hsi-batch[tls]', or leave `security` out.",
        ) from None
    return made


def handed_over(security: Security, folder: str) -> dict[str, str]:
    """Environment with which scheduler and workers take part; the files can be read by us alone.

    Parameters
    ----------
    security : Security
        Of :func:`temporary`.
    folder : str
        Made by us, for this run.
    """
    files = {}
    for name in ("cert", "key"):
        text = getattr(security, f"tls_client_{name}")
        place = Path(folder) / f"{name}.pem"
        place.touch(mode=0o600)
        place.write_text(str(text))
        files[name] = str(place)
    return {
        f"{_ENVIRONMENT}REQUIRE_ENCRYPTION": "true",
        f"{_ENVIRONMENT}TLS__CA_FILE": files["cert"],
        **{
            f"{_ENVIRONMENT}TLS__{role.upper()}__{name.upper()}": file
            for role in _ROLES
            for name, file in files.items()
        },
    }
