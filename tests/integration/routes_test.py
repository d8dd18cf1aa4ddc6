"""The way to a machine, with ssh_config: OpenSSH itself is the oracle."""

from __future__ import annotations

import base64
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provision.apply.dial import Dialer
from provision.apply.engine import Engine
from provision.apply.login import load, public_blob
from provision.apply.ssh import Link, Metrics
from provision.cli import access_commands
from provision.cli.access_commands import _answering
from provision.cli.app import main
from provision.local import known_hosts, ssh_config
from provision.model.cluster import Machine, Ssh
from provision.model.errors import ClusterctlError, UnreachableError

USER = pwd.getpwuid(os.getuid()).pw_name


@contextmanager
def configured(server, *lines):
    """Replace settings of an sshd."""
    file = server.directory / "sshd_config"
    before = file.read_text()
    server.stop()
    keywords = {line.split()[0] for line in lines}
    kept = [line for line in before.splitlines() if line.split()[0] not in keywords]
    file.write_text("\n".join((*kept, *lines, "")))
    server.start()
    try:
        yield
    finally:
        server.stop()
        file.write_text(before)
        server.start()


@pytest.fixture
def config(ground, tmp_path):
    """Write an ssh_config. `bastion` is the third server."""
    file = tmp_path / "ssh_config"

    def write(text):
        file.write_text(
            f"{text}\nHost bastion\n  HostName 127.0.0.1\n  Port {ground.servers[2].port}\n"
            f"  ProxyJump none\nHost *\n  IdentityFile {ground.key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {ground.known_hosts}\n"
        )
        return file

    return write


def oracle(file: Path, name: str, *options: str) -> bool:
    """Whether plain ssh runs a command there."""
    argv = ["ssh", "-F", file, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    return subprocess.run([*argv, *options, name, "true"], check=False).returncode == 0


def fleet(ground, count: int, **ssh) -> tuple[Machine, ...]:
    machine = ground.machine(0, **ssh)
    return tuple(machine.model_copy(update={"name": f"f{n}"}) for n in range(count))


def asked(ground, *machines: Machine, timeout: int = 60):
    with Engine(ground.cluster(*machines), ground.known_hosts, None, timeout=timeout) as engine:
        return engine.fetch(lambda m: f"echo {m.name}", machines)


def logins(server) -> int:
    return len(re.findall(r"Accepted publickey", server.log))


def test_machines_behind_one_bastion_share_a_connection_to_it(ground, config):
    file = config("Host 127.0.0.1\n  ProxyJump bastion")
    machines = fleet(ground, 12, config_file=file)
    with configured(ground.servers[2], "MaxStartups 3:100:3"):
        before = logins(ground.servers[2])
        answers = asked(ground, *machines)
        assert logins(ground.servers[2]) - before == 1

    assert {name: a.output for name, a in answers.items()} == {m.name: m.name for m in machines}


def test_more_connections_than_max_startups_are_all_made_in_the_end(ground):
    machines = fleet(ground, 12)
    with configured(ground.servers[0], "MaxStartups 3:100:3"):
        answers = asked(ground, *machines)

    assert {name: a.error for name, a in answers.items() if a.error} == {}


def test_machines_behind_a_proxy_command_are_all_reached(ground, config):
    file = config("Host 127.0.0.1\n  ProxyCommand ssh -F PATH -W %h:%p bastion")
    file.write_text(file.read_text().replace("PATH", str(file)))
    machines = fleet(ground, 12, config_file=file)
    with configured(ground.servers[2], "MaxStartups 3:100:3"):
        answers = asked(ground, *machines)

    assert {name: a.error for name, a in answers.items() if a.error} == {}


def test_a_host_that_drops_every_connection_is_not_off(ground, monkeypatch):
    monkeypatch.setattr("provision.apply.ssh.PAUSES", (0.01, 0.01))
    with configured(ground.servers[0], "MaxStartups 1:100:1"), _hold(ground.servers[0].port):
        answer = asked(ground, ground.machine(0))["m1"]

    assert "closed each new connection" in answer.error
    assert not answer.off


def _hold(port):
    """Take the only place for a connection that has not logged in."""
    while True:
        held = socket.create_connection(("127.0.0.1", port))
        if held.recv(4) == b"SSH-":
            return held
        held.close()
        time.sleep(0.1)


def test_a_bastion_that_refuses_does_not_make_its_machines_off(ground, config, tmp_path):
    stranger = ground.keygen(tmp_path / "stranger")
    file = config(
        f"Host 127.0.0.1\n  ProxyJump gate\nHost gate\n  HostName 127.0.0.1\n"
        f"  Port {ground.servers[2].port}\n  IdentityFile {stranger}\n  ProxyJump none"
    )
    file.write_text(file.read_text().replace(f"  IdentityFile {ground.key}\n", ""))
    answer = asked(ground, ground.machine(0, config_file=file, key=stranger))["m1"]

    assert "the bastion gate (127.0.0.1)" in answer.error
    assert "Permission denied" in answer.error
    assert not answer.off


def test_a_machine_that_the_bastion_cannot_reach_is_off(ground, config):
    file = config("Host 127.0.0.1\n  ProxyJump bastion")
    answer = asked(ground, ground.machine(0, config_file=file, port=1))["m1"]

    assert "connection refused" in answer.error
    assert "bastion" in answer.error
    assert answer.off


def test_nothing_is_left_of_the_connections_to_bastions(ground, config):
    file = config("Host 127.0.0.1\n  ProxyJump bastion")
    asked(ground, ground.machine(0, config_file=file))
    deadline = time.monotonic() + 5
    while (
        subprocess.run(["pgrep", "-f", file], stdout=subprocess.DEVNULL, check=False).returncode
        == 0
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    "text",
    [
        "Host 127.0.0.1\n  ProxyJump none\nHost *\n  ProxyJump bastion",
        'Match host 127.0.0.1 exec "true"\n  ProxyCommand false',
        'Match host 127.0.0.1 exec "false"\n  ProxyCommand false',
        "Host 127.0.0.1\n  ProxyJump bastion,hop2\nHost hop2\n  HostName 127.0.0.1\n  Port PORT1",
        ("Host 127.0.0.1\n  ProxyJump hop2\n"
        "Host hop2\n  HostName 127.0.0.1\n  Port PORT1\n  ProxyJump bastion"),
        "Host a\n  Include OTHER\nHost 127.0.0.1\n  Include OTHER",
        "ServerAliveInterval 30s",
        "CanonicalizeHostname yes",
        "Host 127.0.0.1\n  ProxyCommand ssh -F CONFIG -W %h:%p bastion",
        "Host 127.0.0.1\n  HostKeyAlias node-one",
        "Host 127.0.0.1\n  HostKeyAlias unknown",
        "# \xe9 is not UTF-8",
        "AddressFamily inet6",
    ],
)  # fmt: skip
def test_clusterctl_gets_in_where_ssh_gets_in(ground, config, tmp_path, monkeypatch, text):
    monkeypatch.setattr("provision.apply.ssh.PAUSES", (0.1,))
    other = tmp_path / "other"
    other.write_text("ProxyJump bastion\n")
    hosts = tmp_path / "hosts"
    hosts.write_text(ground.known_hosts.read_text() + f"node-one {ground.servers[0].host_key}\n")
    file = config("")
    for word, value in {
        "PORT1": str(ground.servers[1].port), "OTHER": str(other), "CONFIG": str(file),
    }.items():  # fmt: skip
        text = text.replace(word, value)
    file.write_bytes(f"{text}\n{file.read_text()}".encode("latin-1"))
    machine = ground.machine(0, config_file=file)
    ground = replace(ground, known_hosts=hosts)

    before = logins(ground.servers[2]), logins(ground.servers[1])
    expected = oracle(
        file, "127.0.0.1", "-p", str(machine.ssh.port), "-o", f"UserKnownHostsFile={hosts}"
    )
    by_ssh = logins(ground.servers[2]) - before[0], logins(ground.servers[1]) - before[1]
    before = logins(ground.servers[2]), logins(ground.servers[1])
    answer = asked(ground, machine)["m1"]

    assert (answer.output == "m1") == expected, answer.error
    if expected:
        by_us = logins(ground.servers[2]) - before[0], logins(ground.servers[1]) - before[1]
        assert by_us == by_ssh


def test_port_and_user_of_ssh_config_count_unless_the_inventory_gives_them(config):
    file = config("Host node-a\n  HostName 192.0.2.9\n  Port 2222\n  User deploy")
    ssh = Ssh(hostname="node-a", config_file=file)

    defaults = ssh_config.settle(ssh, ())
    explicit = ssh_config.settle(ssh, ("port", "user"))

    assert (defaults.user, defaults.port) == ("deploy", 2222)
    assert (explicit.user, explicit.port) == ("root", 22)
    assert ssh_config.resolve(defaults).hostname == "192.0.2.9"


def test_a_bad_ssh_config_is_reported_with_openssh_s_own_message(ground, config):
    file = config("Host 127.0.0.1\n  NoSuchOption yes")
    answer = asked(ground, ground.machine(0, config_file=file))["m1"]

    assert "nosuchoption" in answer.error.lower()
    assert answer.hint.startswith("Correct it until this works: ssh -G")
    assert not answer.off


def test_a_bastion_that_leads_to_itself_is_reported(ground, config):
    file = config(
        "Host 127.0.0.1\n  ProxyJump loop\nHost loop\n  ProxyJump loop2\nHost loop2\n  ProxyJump loop"
    )
    with pytest.raises(ClusterctlError, match="more than 16 bastions"):
        ssh_config.resolve(ground.machine(0, config_file=file).ssh)


@contextmanager
def agent(tmp_path, monkeypatch, *keys):
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            time.sleep(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        for key in keys:
            subprocess.run(["ssh-add", "-q", key], check=True)
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("kind", ["encrypted", "public"])
def test_the_agent_has_the_private_half_of_ssh_key(ground, tmp_path, monkeypatch, kind):
    key = tmp_path / "id"
    if kind == "encrypted":
        shutil.copy(ground.key, key)
        with agent(tmp_path, monkeypatch, key):
            subprocess.run(["ssh-keygen", "-qp", "-N", "secret", "-f", key], check=True)
            answer = asked(ground, ground.machine(0, key=key))["m1"]
    else:
        with agent(tmp_path, monkeypatch, ground.key):
            public = ground.key.with_suffix(".pub")
            answer = asked(ground, ground.machine(0, key=public))["m1"]
    assert answer.output == "m1", answer.error


def test_identities_only_keeps_the_agents_other_keys_back(ground, config, tmp_path, monkeypatch):
    others = [ground.keygen(tmp_path / f"other{n}") for n in range(9)]
    file = config("")
    with agent(tmp_path, monkeypatch, *others):
        assert oracle(file, "127.0.0.1", "-p", str(ground.servers[0].port))
        answer = asked(ground, ground.machine(0, config_file=file, key=None))["m1"]
    assert answer.output == "m1", answer.error


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
@pytest.mark.parametrize("password", ["", "secret"])
def test_a_key_in_pkcs8_is_read(tmp_path, kind, password):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-qt", kind, "-N", "", "-f", key], check=True)
    blob = public_blob(key)
    subprocess.run(
        ["ssh-keygen", "-qp", "-P", "", "-N", password, "-m", "PKCS8", "-f", key], check=True
    )
    assert key.read_text().startswith("-----BEGIN " + ("ENCRYPTED " if password else "") + "PRIV")
    assert load(key, password or None).asbytes() == blob


names = st.sampled_from(["node-a", "node-b", "127.0.0.1"])
patterns = st.sampled_from(["*", "node-*", "node-?", "!node-a *", "node-a", "127.*"])
option = st.one_of(
    st.builds("Port {}".format, st.integers(1, 65535)),
    st.builds("User {}".format, st.sampled_from(["deploy", "root", "x"])),
    st.builds("HostName {}".format, st.sampled_from(["192.0.2.1", "%h.example.com", "N.Example"])),
    st.builds("HostKeyAlias {}".format, st.sampled_from(["one", "Two"])),
    st.builds("ProxyJump {}".format, st.sampled_from(["none", "j1", "u@j1:2,j2", "ssh://j@j2:3"])),
    st.builds("IdentityFile {}".format, st.sampled_from(["~/.ssh/a", "/k/%h-%r-%p"])),
)
blocks = st.lists(st.tuples(patterns, st.lists(option, max_size=4)), max_size=4)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=names, blocks=blocks)
def test_a_generated_ssh_config_is_read_as_ssh_connects(tmp_path, name, blocks):
    """`ssh -v` says what it does, through a ProxyCommand that only prints its tokens."""
    file = tmp_path / "generated"
    # Without the first line the bastions lead to themselves: neither ssh nor clusterctl gets in.
    parts = "".join(f"Host {p}\n  " + "\n  ".join(o) + "\n" for p, o in blocks)
    file.write_text(f"Host j1 j2 ::1\n  ProxyJump none\n{parts}")
    said = tmp_path / "said"
    said.unlink(missing_ok=True)
    say = f"echo %h %p %r >{said}.new; mv {said}.new {said}; exit 1"
    done = subprocess.run(
        ["ssh", "-F", file, "-o", "ProxyJump=none",
         "-o", f"ProxyCommand=sh -c 'trap \"\" HUP TERM PIPE; {say}'", name, "true"],
        check=False, capture_output=True,
    )  # fmt: skip
    deadline = time.monotonic() + 3
    while not said.exists():
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.02)
    ssh = ssh_config.settle(Ssh(hostname=name, config_file=file), ())
    route = ssh_config.resolve(ssh)

    host, port, user = said.read_text().split()
    assert (route.hostname, str(route.port)) == (host, port)
    assert route.user == (
        user if any(o.startswith("User") for _, b in blocks for o in b) else "root"
    )


def test_a_pin_is_known_under_the_host_key_alias(ground, config, tmp_path):
    file = config("Host 127.0.0.1\n  HostKeyAlias node-one")
    machine = ground.machine(0, config_file=file, host_key=ground.servers[0].host_key)
    hosts = known_hosts.write([machine.ssh], tmp_path / "known_hosts")

    assert hosts.read_text().startswith("node-one ")
    assert asked(replace(ground, known_hosts=hosts), machine)["m1"].output == "m1"


def test_a_changed_key_of_a_bastion_is_said_of_the_bastion(ground, config, tmp_path):
    file = config("Host 127.0.0.1\n  ProxyJump bastion")
    hosts = tmp_path / "hosts"
    hosts.write_text(f"[127.0.0.1]:{ground.servers[2].port} {ground.servers[1].host_key}\n")
    file.write_text(file.read_text().replace(str(ground.known_hosts), str(hosts)))
    machine = ground.machine(0, config_file=file)
    with (
        Engine(ground.cluster(machine), ground.known_hosts, None) as engine,
        pytest.raises(UnreachableError, match="bastion .* shows another host key") as caught,
    ):
        engine.shell(machine, "true")
    assert not caught.value.off


def test_the_inventorys_known_hosts_and_key_count_for_the_bastion(ground, tmp_path):
    file = tmp_path / "plain"
    file.write_text(
        f'Match host 127.0.0.1 exec "test %p = {ground.servers[0].port}"\n'
        f"  ProxyJump {USER}@127.0.0.1:{ground.servers[2].port}\n"
    )
    machine = ground.machine(0, config_file=file, known_hosts_file=ground.known_hosts)
    assert asked(ground, machine)["m1"].output == "m1"


def test_kubectl_leaves_the_only_master_behind_a_bastion_to_ssh(ground, config):
    behind = config("Host 192.0.2.77\n  ProxyJump bastion")
    master = Machine(
        name="m1", address="10.0.0.1", roles={"master"},
        ssh=Ssh(hostname="192.0.2.77", config_file=behind),
    )  # fmt: skip
    assert _answering([master]) == master


@pytest.mark.parametrize(
    "way", ["", "ProxyJump bastion", "ProxyCommand ssh -F PATH -W %h:%p bastion"]
)
def test_kubectl_uses_the_first_master_that_answers(ground, config, way):
    file = config(f"Host 127.0.0.1\n  {way}" if way else "")
    file.write_text(file.read_text().replace("PATH", str(file)))
    off = ground.machine(0, config_file=file, port=1)
    answering, third = (ground.machine(n, config_file=file) for n in (0, 1))

    before = ground.servers[1].log
    assert _answering([off, answering, third]) == answering
    assert ground.servers[1].log == before
    assert _answering([off, off]) is None


def test_kubectl_leaves_a_bastion_that_refuses_to_ssh(ground, config):
    file = config("Host 127.0.0.1\n  ProxyJump gate\nHost gate\n  HostName 127.0.0.1\n  Port 1")
    masters = [ground.machine(n, config_file=file) for n in (0, 1)]

    assert _answering(masters) == masters[0]
    assert _answering([*masters, ground.machine(2)]).name == "m3"


def test_a_machine_that_refuses_one_more_session_keeps_its_connection(ground, monkeypatch):
    monkeypatch.setattr("provision.apply.ssh.SESSION_PAUSES", (0.1, 0.1))
    machine = ground.machine(0)
    with (
        configured(ground.servers[0], "MaxSessions 1"),
        Engine(ground.cluster(machine), ground.known_hosts, None) as engine,
    ):
        before = logins(ground.servers[0])
        first = gevent.spawn(engine.shell, machine, "sleep 2; echo whole")
        gevent.sleep(0.5)
        more = [gevent.spawn(engine.shell, machine, "true") for _ in range(2)]
        gevent.joinall([first, *more])

        assert first.get() == (0, "whole\n", "")
        for refused in more:
            assert isinstance(refused.exception, UnreachableError)
            assert "refused one more session" in refused.exception.message
            assert "MaxSessions" in refused.exception.hint
            assert not refused.exception.off
        assert logins(ground.servers[0]) - before == 1


def test_closing_a_connection_leaves_the_next_one_open(ground, monkeypatch):
    machine = ground.machine(0)
    cluster = ground.cluster(machine)
    link = Link(machine, cluster, ground.known_hosts, None, Metrics(), Dialer())
    old = link.client()
    close = old.close

    def switch():
        close()
        link.client()  # as another greenlet does

    monkeypatch.setattr(old, "close", switch)
    link.close()
    after = link.client()
    try:
        assert link.run("echo here", timeout=10).stdout == "here\n"
        assert link.client() is after
    finally:
        link.close()


def test_a_session_is_opened_when_another_command_has_ended(ground):
    machine = ground.machine(0)
    with (
        configured(ground.servers[0], "MaxSessions 1"),
        Engine(ground.cluster(machine), ground.known_hosts, None) as engine,
    ):
        before = logins(ground.servers[0])
        commands = [gevent.spawn(engine.shell, machine, "sleep 0.3; echo done") for _ in range(3)]
        assert [command.get()[1] for command in commands] == ["done\n"] * 3
        assert logins(ground.servers[0]) - before == 1


@pytest.mark.parametrize("other", ["ed25519", "rsa", "broken"])
def test_a_certificate_belongs_to_the_key_that_it_certifies(ground, config, tmp_path, other):
    authority, stranger, own = (tmp_path / name for name in ("ca", "stranger", "own"))
    ground.keygen(authority)
    subprocess.run(["ssh-keygen", "-qt", other.replace("broken", "rsa"), "-N", "", "-f", stranger],
                   check=True)  # fmt: skip
    shutil.copy(ground.key, own)
    shutil.copy(f"{ground.key}.pub", f"{own}.pub")
    for key in (stranger, own):
        subprocess.run(
            ["ssh-keygen", "-qs", authority, "-I", "x", "-n", USER, f"{key}.pub"], check=True
        )
    foreign, certificate = tmp_path / "foreign", tmp_path / "certificate"
    (tmp_path / "stranger-cert.pub").rename(foreign)
    (tmp_path / "own-cert.pub").rename(certificate)
    if other == "broken":
        foreign.write_text("ssh-ed25519-cert-v01@openssh.com AAAA")

    # The plain key is accepted, with another key's certificate in the way.
    file = config(f"CertificateFile {foreign}")
    assert oracle(file, "127.0.0.1", "-p", str(ground.servers[0].port))
    plain = asked(ground, ground.machine(0, config_file=file, key=None))["m1"]
    assert plain.output == "m1", plain.error

    # Only the certificate is accepted. It is not the first in ssh_config.
    file = config(f"CertificateFile {foreign}\n  CertificateFile {certificate}")
    trusted = f"TrustedUserCAKeys {authority}.pub"
    with configured(ground.servers[0], "AuthorizedKeysFile none", trusted):
        assert oracle(file, "127.0.0.1", "-p", str(ground.servers[0].port))
        certified = asked(ground, ground.machine(0, config_file=file, key=None))["m1"]
    assert certified.output == "m1", certified.error


# The hints, followed.


def located(ground, machine, tmp_path):
    """The machine's answer, with the known hosts as a command takes them over."""
    hosts = known_hosts.write([machine.ssh], tmp_path / "copy")
    return asked(replace(ground, known_hosts=hosts), machine)["m1"]


def follow(hint: str, *, yes: bool = False) -> None:
    """Run the commands of a hint. `yes`: the operator accepts the fingerprint."""
    for command in re.findall(r"\b(ssh(?:-keygen)? -[^;]+)", hint):
        line = command.partition("; or set")[0].strip()
        if yes and line.startswith("ssh "):
            line = f"{line} true".replace("ssh ", "ssh -o StrictHostKeyChecking=accept-new ", 1)
        subprocess.run(["bash", "-c", line], check=True, capture_output=True)


@pytest.mark.parametrize("before", ["nothing", "another", "hashed", "pattern"])
def test_the_hint_about_a_host_key_removes_the_error(ground, tmp_path, before):
    name, wrong = f"[127.0.0.1]:{ground.servers[0].port}", ground.servers[1].host_key
    hosts = tmp_path / "own known_hosts"
    hosts.write_text({"nothing": "", "pattern": f"[127.0.0.*]:* {wrong}\n"}.get(
        before, f"{name} {wrong}\n"))  # fmt: skip
    if before == "hashed":
        subprocess.run(["ssh-keygen", "-qHf", hosts], check=True, capture_output=True)
    machine = ground.machine(0, known_hosts_file=hosts, user=USER)
    refused = located(ground, machine, tmp_path)
    assert "host key" in refused.error

    if before == "pattern":
        assert f"correct line 1 of {hosts}" in refused.hint
        hosts.write_text("")
    follow(refused.hint, yes=True)

    assert located(ground, machine, tmp_path).output == "m1"


def test_a_machine_known_by_a_certificate_has_a_hint_that_works(ground, tmp_path, config):
    authority = ground.keygen(tmp_path / "ca")
    public = authority.with_suffix(".pub").read_text()
    host = ground.servers[0].directory / "host"
    shutil.copy(f"{host}.pub", tmp_path / "host.pub")
    subprocess.run(
        ["ssh-keygen", "-qs", authority, "-I", "m1", "-hn", "127.0.0.1", tmp_path / "host.pub"],
        check=True,
    )  # fmt: skip
    hosts = tmp_path / "hosts"
    hosts.write_text(f"@cert-authority [127.0.0.1]:{ground.servers[0].port} {public}")
    certificate = f"HostCertificate {tmp_path}/host-cert.pub"
    machine = ground.machine(0, known_hosts_file=hosts, user=USER)
    with configured(ground.servers[0], certificate):
        option = ("-p", str(machine.ssh.port), "-o", f"UserKnownHostsFile={hosts}")
        assert oracle(config(""), "127.0.0.1", *option)
        refused = located(ground, machine, tmp_path)
        assert "known only by its certificate" in refused.error
        assert refused.hint.endswith(" cat /etc/ssh/ssh_host_ed25519_key.pub")
        pinned = ground.machine(0, user=USER, host_key=ground.servers[0].host_key)

        assert located(ground, pinned, tmp_path).output == "m1"


@pytest.mark.parametrize("form", ["list", "krl", "other", "missing"])
def test_revoked_host_keys_of_ssh_config_are_refused_as_by_ssh(ground, config, tmp_path, form):
    revoked, public = tmp_path / "revoked", tmp_path / "key.pub"
    public.write_text(f"{ground.servers[form == 'other'].host_key}\n")
    if form == "krl":
        subprocess.run(["ssh-keygen", "-qkf", revoked, public], check=True)
    elif form != "missing":
        shutil.copy(public, revoked)
    file = config(f"Host 127.0.0.1\n  RevokedHostKeys {revoked}")
    machine = ground.machine(0, config_file=file)

    expected = oracle(file, "127.0.0.1", "-p", str(machine.ssh.port))
    answer = asked(ground, machine)["m1"]

    assert expected == (form == "other")
    assert (answer.output == "m1") == expected, answer.error
    if not expected:
        assert "RevokedHostKeys" in answer.error


def fido_key(path: Path) -> Path:
    """A private key whose secret half is on a token, as `ssh-keygen -t ed25519-sk` writes it."""

    def strings(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    public = strings(b"sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:")
    one = (1).to_bytes(4, "big")
    data = b"openssh-key-v1\0" + strings(b"none", b"none", b"") + one + strings(public, bytes(64))
    text = base64.b64encode(data).decode()
    path.write_text(
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}\n-----END OPENSSH PRIVATE KEY-----\n"
    )
    return path


def test_a_fido_key_has_a_hint_of_its_own(ground, config, tmp_path):
    key = fido_key(tmp_path / "token")
    given = asked(ground, ground.machine(0, key=key))["m1"]
    assert f"{key} is a FIDO key" in given.error
    assert given.hint == f"Only an agent can use it: add the key to your agent: ssh-add {key}"

    file = config("")
    file.write_text(file.read_text().replace(f"IdentityFile {ground.key}", f"IdentityFile {key}"))
    found = asked(ground, ground.machine(0, config_file=file, key=None))["m1"]
    assert "FIDO keys work only through an agent" in found.hint


@pytest.mark.parametrize("shell", ["tcsh", "fish", "dash"])
def test_a_login_shell_of_another_kind_runs_the_programs(ground, shell):
    if not (program := shutil.which(shell)):
        pytest.skip(f"no {shell} here")
    command = r"""for x in 'a\\b' "c!d"
    do printf '%s\n' "$x"
    done"""
    with configured(ground.servers[0], f'ForceCommand {program} -c "$SSH_ORIGINAL_COMMAND"'):
        machine = ground.machine(0)
        with Engine(ground.cluster(machine), ground.known_hosts, None) as engine:
            assert engine.shell(machine, command) == (0, "a\\\\b\nc!d\n", "")


@pytest.mark.parametrize(
    ("shell", "told"), [("nologin", "has no shell there"), ("false", "status 1")]
)
def test_an_account_without_a_shell_is_named(ground, shell, told):
    with configured(
        ground.servers[0], f"ForceCommand {shutil.which(shell, path='/usr/sbin:/bin')}"
    ):
        answer = asked(ground, ground.machine(0))["m1"]

    assert told in answer.error
    assert not answer.off


SUDO = """#!/bin/sh
# As sudo for a user with a password: it reads it from its input, or from a terminal.
[ "$1" = -S ] || { echo "sudo: a terminal is required to read the password" >&2; exit 1; }
IFS= read -r password
[ "$password" = 'p w$"x' ] || { echo "sudo: 1 incorrect password attempt" >&2; exit 1; }
while [ "$1" != sh ]; do shift; done
exec "$@"
"""


def test_kubectl_gives_sudo_the_inventorys_password(ground, tmp_path, monkeypatch, capfd):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sudo").write_text(SUDO)
    (programs / "sudo").chmod(0o755)
    machine = ground.machine(0, user=USER, sudo=True, sudo_password='p w$"x')
    monkeypatch.setattr(
        access_commands, "_located", lambda _: (ground.cluster(machine), ground.known_hosts)
    )
    given = tmp_path / "input"
    given.write_text("the command's own input\n")
    with (
        configured(ground.servers[0], f"SetEnv PATH={programs}:{os.environ['PATH']}"),
        given.open() as stdin,
    ):
        before = os.dup(0)
        os.dup2(stdin.fileno(), 0)
        try:
            code = main(["ssh", "x.py", "m1", "--", "sh", "-c", 'cat; echo "it\'s $0!"; exit 3'])
        finally:
            os.dup2(before, 0)
            os.close(before)

    assert code == 3
    assert capfd.readouterr().out == "the command's own input\nit's sh!\n"
