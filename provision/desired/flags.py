"""Command lines of the daemons, and the flags that all of them have."""

from __future__ import annotations

from collections.abc import Mapping

# TLS 1.2 suites with forward secrecy and authenticated encryption that are, under these names, on
# the lists of both CIS 1.2.29 and 4.2.12; those of TLS 1.3 are not configurable in Go.
CIPHER_SUITES = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
)


def flags(ours: Mapping[str, str], extra: Mapping[str, str]) -> tuple[str, ...]:
    """`--name=value` for each, sorted; the inventory's extra arguments take precedence.

    `%` and `$` are doubled: systemd would expand them in a unit file.
    """
    merged = {**ours, **extra}
    return tuple(
        f"--{name}={value}".replace("%", "%%").replace("$", "$$")
        for name, value in sorted(merged.items())
    )
