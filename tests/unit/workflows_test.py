"""What a phase does to a running cluster, also when it is stopped in the midst."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from provision.apply.phases.apiserver import without_apiserver
from provision.local.progress import Silent
from provision.model.errors import PhaseError, UnreachableError
from tests.world import master

M1 = master("m1")
STOP, START = (f"systemctl {verb} kube-apiserver.service" for verb in ("stop", "start"))
START_ANYHOW = "systemctl --no-block start kube-apiserver.service"


class Engine:
    """Remembers what the machine is told; with one of these commands something happens."""

    def __init__(self, **happens) -> None:
        self.told: list[str] = []
        self.happens = happens

    def shell(self, machine, command):
        self.told.append(command)
        happens = self.happens.get(command.split()[1].strip("-").replace("-", "_"), 0)
        if isinstance(happens, Exception):
            raise happens
        return happens, "", "no"


def drained(engine):
    etcd = SimpleNamespace(restarts=True)
    plan = SimpleNamespace(
        running=True, machines={"m1": SimpleNamespace(components={"etcd": etcd})}
    )
    session = SimpleNamespace(engine=engine)
    work = SimpleNamespace(plan=plan, session=session, progress=Silent())
    return without_apiserver(work, [M1])


def test_an_apiserver_is_stopped_while_its_member_restarts():
    engine = Engine()
    with drained(engine):
        engine.told.append("restart etcd")
    assert engine.told == [STOP, "restart etcd", START]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), PhaseError("etcd", [])])
def test_whatever_ends_that_the_apiserver_does_not_stay_stopped(error):
    engine = Engine()
    with pytest.raises(type(error)) as caught, drained(engine):
        raise error
    assert caught.value is error
    assert engine.told == [STOP, START_ANYHOW]


def test_an_apiserver_that_did_not_stop_cleanly_is_started_again():
    engine = Engine(stop=1)
    with pytest.raises(PhaseError, match="stop kube-apiserver"), drained(engine):
        pytest.fail("its member is restarted")
    assert engine.told == [STOP, START_ANYHOW]


def test_the_original_error_is_reported_even_if_the_machine_is_unreachable():
    engine = Engine(no_block=UnreachableError("m1 is off"))
    with pytest.raises(PhaseError, match="no quorum"), drained(engine):
        raise PhaseError("no quorum", [])
    assert engine.told == [STOP, START_ANYHOW]
