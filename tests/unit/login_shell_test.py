"""A command reaches sh whole, whatever the user's login shell is."""

import shutil
import subprocess
from shlex import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.model.shell import for_any_login_shell

SHELLS = [name for name in ("sh", "bash", "dash", "zsh", "tcsh", "fish") if shutil.which(name)]
PROGRAM = r"""set -eu
f() { # it's a "test" ! of $HOME
    printf '%s\n' "a\\b!c" '$x' `echo tick`
}
f | sed 's/\\/X/; s/!/E/'
cat
"""


@pytest.mark.parametrize("shell", SHELLS)
def test_a_program_of_many_lines_runs_and_reads_its_input(shell):
    line = for_any_login_shell(f"sh -c {quote(PROGRAM)}")
    done = subprocess.run(
        [shell, "-c", line], input="its input", check=True, capture_output=True, text=True
    )

    assert done.stdout == "aXbEc\n$x\ntick\nits input"


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=5, deadline=None)
@given(text=st.text("ab'\"!\\$`\n~*?{}[]()<>|&;# ü^%", max_size=40))
def test_each_character_reaches_the_program(shell, text):
    line = for_any_login_shell(f"printf %s {quote(text)}; exit 7")
    done = subprocess.run([shell, "-c", line], check=False, capture_output=True)

    if set(text) & set("\n!\\"):  # without these, a command is a plain line of its shell
        assert (done.stdout, done.returncode) == (text.encode(), 7)


def test_a_plain_command_stays_as_it_is():
    assert for_any_login_shell("sudo -n id") == "sudo -n id"
