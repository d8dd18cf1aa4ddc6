"""Shell programs: files whose parameters are assignments in front of them."""

from __future__ import annotations

from shlex import quote


def with_parameters(text: str, **parameters: str) -> str:
    """Write `name=value` lines, quoted, and the program after them."""
    return "".join(f"{name}={quote(value)}\n" for name, value in parameters.items()) + text


# Within single quotes csh does not take a newline, and replaces `!`; fish replaces `\\`.
_SPECIAL, _CARRIED = "\n!\\", "\x01\x02\x03"
_DECODE = r'exec sh -c "$(printf %s "$1" | tr "\001\002\003" "\012\041\134")"'


def for_any_login_shell(command: str) -> str:
    """Write a command of `sh` so that sh, bash, zsh, csh, tcsh and fish run it.

    sshd gives a command to the user's login shell. The result is one line, in which each word is a
    plain word or in single quotes without characters that a shell replaces there.
    """
    if not set(command) & set(_SPECIAL):
        return command
    carried = command.translate(str.maketrans(_SPECIAL, _CARRIED))
    return f"sh -c {quote(_DECODE)} sh {quote(carried)}"
