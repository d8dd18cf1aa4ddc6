"""A command that failed: on which machine, in which step, with the end of what it wrote."""

from __future__ import annotations

import pytest

from provision.apply.checked import checked, failure
from provision.model.errors import PhaseError
from tests.world import master

M1 = master("m1")


def test_the_output_of_a_successful_command_is_returned():
    assert checked((0, "three members", "a warning"), M1, "etcd", "list") == "three members"


def test_a_command_that_failed_names_machine_step_cause_and_what_to_do_next():
    with pytest.raises(PhaseError, match="phase 'etcd' failed") as caught:
        checked((1, "", " no quorum\n"), M1, "etcd", "list", hint="start the others")
    (problem,) = caught.value.failures
    assert (problem.machine, problem.step, problem.cause) == ("m1", "list", "no quorum")
    assert caught.value.hint == "start the others"


def test_a_command_that_failed_without_a_word_gives_its_exit_status():
    assert failure((7, "", "\n"), M1, "list").cause == "exit status 7"


def test_only_the_end_of_a_long_error_output_is_kept():
    assert failure((1, "", "x" * 5000 + "the end"), M1, "list").cause == "x" * 1993 + "the end"
