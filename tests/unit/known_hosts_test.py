"""The one known_hosts file of a cluster, judged by OpenSSH's own ssh-keygen."""

import stat
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paramiko import ECDSAKey, HostKeys

from provision.local import known_hosts
from provision.model.cluster import Ssh


def make_key() -> str:
    key = ECDSAKey.generate()
    return f"{key.get_name()} {key.get_base64()}"


def found(file: Path, host: str) -> list[str]:
    """Give the keys that OpenSSH finds for a host."""
    command = ["ssh-keygen", "-F", host, "-f", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [" ".join(line.split()[1:3]) for line in lines if not line.startswith("#")]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    return home


def test_pinned_keys_are_found_at_port_22_and_at_other_ports(tmp_path):
    one, other = make_key(), make_key()
    machines = [
        Ssh(hostname="192.0.2.1", host_key=f"{one} a comment"),
        Ssh(hostname="192.0.2.1", port=2222, host_key=other),
    ]
    file = known_hosts.write(machines, tmp_path / "state" / "known_hosts")
    assert found(file, "192.0.2.1") == [one]
    assert found(file, "[192.0.2.1]:2222") == [other]
    assert len(HostKeys(str(file)).lookup("[192.0.2.1]:2222")) == 1


def test_only_the_owner_may_read_it_and_a_second_write_replaces_it(tmp_path):
    file = tmp_path / "state" / "known_hosts"
    key = make_key()
    known_hosts.write([Ssh(hostname="a", host_key=make_key())], file)
    known_hosts.write([Ssh(hostname="b", host_key=key)], file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert (found(file, "a"), found(file, "b")) == ([], [key])
    assert list(file.parent.iterdir()) == [file]


def test_machines_without_a_pin_are_known_by_the_users_own_file(tmp_path, home):
    key = make_key()
    (home / ".ssh" / "known_hosts").write_text(f"192.0.2.7 {key}\n")
    file = known_hosts.write([Ssh(hostname="192.0.2.7")], tmp_path / "known_hosts")
    assert found(file, "192.0.2.7") == [key]


def test_a_file_of_its_own_counts_for_the_machine_that_names_it(tmp_path):
    key = make_key()
    own = tmp_path / "own"
    own.write_text(f"192.0.2.7 {key}\n")
    machines = [Ssh(hostname="192.0.2.7", known_hosts_file=own)]
    assert found(known_hosts.write(machines, tmp_path / "known_hosts"), "192.0.2.7") == [key]


@pytest.mark.parametrize("names", ["*", "192.0.2.?", "192.0.2.1,192.0.2.2"])
def test_a_key_from_another_machines_file_is_not_accepted(tmp_path, names):
    keys = [make_key(), make_key()]
    machines = []
    for n, key in enumerate(keys, 1):
        own = tmp_path / f"own{n}"
        own.write_text(f"{names} {key}\n@cert-authority {names} {key}\n")
        machines.append(Ssh(hostname=f"192.0.2.{n}", known_hosts_file=own))
    file = known_hosts.write(machines, tmp_path / "known_hosts")
    for machine, key in zip(machines, keys, strict=True):
        assert found(file, machine.hostname) == [key, f"{machine.hostname} {key.split()[0]}"]
        known = known_hosts.lookup([file], machine.hostname)
        assert [entry.key for entry in known.keys] == [b64decode(key.split()[1])]


def test_a_key_known_without_the_port_is_valid_at_this_machines_port_alone(tmp_path):
    key, other = make_key(), make_key()
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(f"192.0.2.1 {key}\n@revoked 192.0.2.1 {other}\n192.0.2.1 {other}\n")
    two.write_text(f"192.0.2.1 {other}\n")
    machines = [
        Ssh(hostname="192.0.2.1", port=2222, known_hosts_file=one),
        Ssh(hostname="192.0.2.1", port=2223, known_hosts_file=two),
    ]
    file = known_hosts.write(machines, tmp_path / "known_hosts")
    first, second = (known_hosts.lookup([file], f"[192.0.2.1]:{m.port}") for m in machines)
    key, other = (b64decode(k.split()[1]) for k in (key, other))
    assert (first.accepts(key), first.accepts(other)) == (True, False)
    assert not second.accepts(key)
    assert not known_hosts.lookup([file], "192.0.2.1").keys


@pytest.mark.parametrize(
    "name",
    ["[192.0.2.1]:2222", HostKeys.hash_host("[192.0.2.1]:2222"), "[192.0.2.*]:222?", "*"],
    ids=["name", "hashed name", "pattern", "all names"],  # a hashed name differs in each process
)
def test_a_pinned_machine_is_never_taken_for_another_key_of_the_users_file(tmp_path, home, name):
    pinned, stale = make_key(), make_key()
    (home / ".ssh" / "known_hosts").write_text(f"{name} {stale}\n")
    one, other = Ssh(hostname="192.0.2.1", port=2222, host_key=pinned), Ssh(hostname="192.0.2.2")
    file = known_hosts.write([one, other], tmp_path / "known_hosts")
    assert found(file, "[192.0.2.1]:2222") == [pinned]


def test_lines_that_paramiko_cannot_read_do_not_cost_the_others(tmp_path, home):
    key = make_key()
    lines = [
        "# a comment",
        "",
        "192.0.2.8 ssh-rsa not-base64!",
        "@cert-authority *.example.org ssh-rsa AAAA",
        "192.0.2.8",
        f"192.0.2.7 {key}",
    ]
    (home / ".ssh" / "known_hosts").write_text("\n".join(lines))
    file = known_hosts.write([Ssh(hostname="192.0.2.7")], tmp_path / "known_hosts")
    assert found(file, "192.0.2.7") == [key]
    assert len(file.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "names",
    ["*", "192.0.2.*", "192.0.2.7", HostKeys.hash_host("192.0.2.7")],
    ids=["all", "pattern", "name", "hashed"],
)
@pytest.mark.parametrize("pinned", [True, False])
def test_a_revoked_key_is_never_accepted(tmp_path, home, names, pinned):
    bad, good = make_key(), make_key()
    (home / ".ssh" / "known_hosts").write_text(
        f"192.0.2.7 {bad}\n192.0.2.7 {good}\n@revoked {names} {bad}\n"
    )
    ssh = Ssh(hostname="192.0.2.7", host_key=bad if pinned else None)
    known = known_hosts.lookup([known_hosts.write([ssh], tmp_path / "file")], "192.0.2.7")
    assert not known.accepts(b64decode(bad.split()[1]))
    assert known.accepts(b64decode(good.split()[1])) == (not pinned)


PATTERNS = ["*", "a*", "!ab", "ab", "?b", "[ab]:2222", "[a*]:2*", "!*b", "AB", "b"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lines=st.lists(st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3), max_size=4),
    host=st.sampled_from(["ab", "b", "[ab]:2222"]),
)
def test_names_match_as_for_openssh(tmp_path, lines, host):
    file = tmp_path / "generated"
    keys = [make_key() for _ in lines]
    file.write_text("".join(f"{','.join(n)} {k}\n" for n, k in zip(lines, keys, strict=True)))
    entries = [e for e in known_hosts._entries(file) if e.matches(host)]
    assert [e.key for e in entries] == [b64decode(k.split()[1]) for k in found(file, host)]


def test_without_known_keys_the_file_exists_and_is_empty(tmp_path):
    file = known_hosts.write([Ssh(hostname="192.0.2.7")], tmp_path / "known_hosts")
    assert file.read_text() == ""
