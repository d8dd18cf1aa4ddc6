"""One read-only look at a machine: the program that looks, and what its output means."""

from provision.observe import parse, script

__all__ = ["parse", "script"]
