"""One read-only look at a machine: the program that looks, and the parser of its output."""

from provision.observe import parse, script

__all__ = ["parse", "script"]
