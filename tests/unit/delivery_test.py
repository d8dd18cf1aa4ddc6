"""Sending artifacts to the machine that hands them on."""

from __future__ import annotations

import pytest

from provision.apply import delivery
from provision.apply.delivery import Group
from provision.artifacts.model import Ready
from provision.local.progress import Silent
from provision.model.errors import ClusterctlError, UnreachableError
from tests.world import master

M1 = master("m1")


class Engine:
    """Reads what is to be sent, as a connection does; remembers what machines are told."""

    def __init__(self, error: ClusterctlError | None = None) -> None:
        self.error = error
        self.told: list[str] = []

    def stream(self, machine, command, source, **_):
        try:
            list(source)
        except OSError as error:
            raise ClusterctlError(str(error)) from error
        if self.error:
            raise self.error
        return 0, "", ""

    def shell(self, machine, command):
        self.told.append(command)
        return 0, "", ""


@pytest.fixture
def group(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "kubelet"
    file.write_bytes(b"kubelet")
    return Group(M1, (M1,), (Ready("kubelet", "1", "amd64", "a" * 64, local=file),))


def test_a_complete_send_is_no_failure_and_leaves_the_service_running(group):
    engine = Engine()
    assert delivery._push(engine, group, Silent()) is None
    assert engine.told == []


@pytest.mark.parametrize("error", [ClusterctlError("broken"), UnreachableError("broken")])
def test_after_a_failed_send_no_machine_waits_for_the_rest(group, error):
    engine = Engine(error)
    assert delivery._push(engine, group, Silent()).cause == "broken"
    assert engine.told == [f"systemctl --quiet stop {delivery.UNIT}"]


def test_a_full_local_disk_is_reported_once(group, monkeypatch, capfd):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(delivery, "compressed", full)
    engine = Engine()
    assert "No space left" in delivery._push(engine, group, Silent()).cause
    assert engine.told == [f"systemctl --quiet stop {delivery.UNIT}"]
    assert capfd.readouterr() == ("", "")
