"""The commands that messages give to the operator, as a shell takes them.

A test parses each clusterctl command, and checks that the distributions have each other program.
"""

from __future__ import annotations

import shlex


def clusterctl(*words: object) -> str:
    """Give a command line of clusterctl. The operator replaces words in capitals."""
    return shell("clusterctl", *words)


def shell(*words: object) -> str:
    """Give a command line for a shell. Each word reaches the program as it is."""
    return shlex.join(str(word) for word in words)
