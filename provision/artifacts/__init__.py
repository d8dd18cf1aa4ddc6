"""Artifacts: their pins, their sources, and the code that makes them ready for delivery."""

from provision.artifacts.bundle import compressed, open_bundle, write_bundle
from provision.artifacts.catalogue import pins
from provision.artifacts.download import fetch
from provision.artifacts.oci import layout_from_archive
from provision.artifacts.sources import prepare

__all__ = [
    "compressed",
    "fetch",
    "layout_from_archive",
    "open_bundle",
    "pins",
    "prepare",
    "write_bundle",
]
