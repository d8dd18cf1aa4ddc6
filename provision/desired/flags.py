"""Command lines of the daemons, and the flags that all of them have."""

from __future__ import annotations

from collections.abc import Mapping

# TLS 1.2 suites with forward secrecy and authenticated encryption. CIS 1.2.29 and CIS 4.2.12 both
# list them under these names. Go does not allow a choice of TLS 1.3 suites.
CIPHER_SUITES = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
)


def flags(ours: Mapping[str, str], extra: Mapping[str, str]) -> tuple[str, ...]:
    """Give `--name=value` for each flag, sorted by name. The inventory's `extra` takes precedence.

    `%` and `$` are doubled, because systemd would expand them in a unit file.
    """
    merged = {**ours, **extra}
    return tuple(
        f"--{name}={value}".replace("%", "%%").replace("$", "$$")
        for name, value in sorted(merged.items())
    )
