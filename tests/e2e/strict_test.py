"""The strictest inventory: sudo and the proxy need passwords, the cache is encrypted, the machines
have a firewall. No secret is visible anywhere during the tests. The firewall lets in only what the
cluster needs. `down` keeps everything that clusterctl did not make.

Machines of the lab are containers: their processes are in this computer's /proc, so one watch sees
them all, and clusterctl. The canaries are secrets of the inventory, and the cluster's own keys.

The tests run in the order of the file: the third ends the watch, the last removes the cluster.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from provision import inventory
from provision.machines.lab import Lab as LabSource
from tests.e2e.conftest import CLUSTERCTL, ENGINE, Lab, cluster, run
from tests.e2e.sample import long

pytestmark = pytest.mark.e2e

USER = "admin"
SUDO = "canary-sudo-2f81c0"  # pragma: allowlist secret
PROXY = "canary-proxy-77e1d4"
PASSPHRASE = "canary-passphrase-90bb3a"  # pragma: allowlist secret
CONTENT = "canary-of-a-secret-5e1f22"
GIVEN = {
    "sudo's password": SUDO,
    "the proxy's password": PROXY,
    "the cache's passphrase": PASSPHRASE,
    "a Secret": CONTENT,
    "a Secret, in base64": base64.b64encode(CONTENT.encode()).decode(),
}
TOKEN = re.compile(rb"token: [\"']?[a-z0-9]{6}\.([a-z0-9]{16})")
SERVICE = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: w1
  containers: [{name: web, image: "registry.k8s.io/e2e-test-images/agnhost:2.63.0", args: [netexec]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 8080, nodePort: 30080}]}
"""
SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "canary"},
    "stringData": {"content": CONTENT},
}


class Watch(threading.Thread):
    """Collects the argument list and environment of every process early; and one-time tokens.

    The watch looks at a process in each of its first rounds, because it may start another program,
    and then once a second.
    """

    PERIOD = 0.05  # seconds
    FIRST, SELDOM = 10, 20  # rounds

    def __init__(self, machines: list[str]) -> None:
        """Watch machines, each named by the process ID of its first process."""
        super().__init__(daemon=True)
        self._joining = [
            Path(f"/proc/{p}/root/etc/kubernetes/bootstrap-kubelet.conf") for p in machines
        ]
        self._ended = threading.Event()
        self.seen: set[tuple[str, int, bytes]] = set()
        self.tokens: set[str] = set()
        self.rounds = 0

    def run(self) -> None:
        ages: dict[str, int] = {}  # process -> rounds since it was first seen
        while not self._ended.wait(self.PERIOD):
            here = [entry.name for entry in os.scandir("/proc") if entry.name.isdigit()]
            ages = {name: ages.get(name, -1) + 1 for name in here}
            for name, age in ages.items():
                if age < self.FIRST or age % self.SELDOM == 0:
                    self._look(f"/proc/{name}")
            for path in self._joining:
                try:
                    self.tokens |= {found.decode() for found in TOKEN.findall(path.read_bytes())}
                except OSError:
                    continue
            self.rounds += 1

    def _look(self, process: str) -> None:
        for kind in ("cmdline", "environ"):
            try:
                with open(f"{process}/{kind}", "rb", buffering=0) as file:  # noqa: PTH123 - often
                    self.seen.add((kind, os.stat(process).st_uid, file.read()))  # noqa: PTH116
            except OSError:
                continue

    def end(self) -> None:
        self._ended.set()
        self.join()


@dataclass
class Strict:
    """The machines.

    Attributes:
        lab: access to the machines as root, for assertions.
        theirs: access as an operator whose sudo needs a password, for all commands under test.
        said: all output of clusterctl to this operator.
        canaries: name of a secret -> a text that occurs only in this secret.
    """

    lab: Lab
    theirs: Lab
    addresses: dict[str, str]
    watch: Watch
    said: list[str] = field(default_factory=list)
    canaries: dict[str, str] = field(default_factory=lambda: dict(GIVEN))

    def clusterctl(
        self, command: str, *arguments: str | Path, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = self.theirs.clusterctl(command, *arguments, check=check)
        self.said += [done.stdout, done.stderr]
        return done

    def write_inventory(self, **more: object) -> None:
        located = LabSource().locate(inventory.read(self.lab.inventory))

        def hosts(name: str) -> str:
            ssh = located[name].ssh
            data = {"ssh_hostname": ssh.hostname, "ssh_key": str(ssh.key)}
            data |= {"ssh_host_key": ssh.host_key, "ssh_user": USER}
            return repr([(name, {**data, "sudo": True, "sudo_password": SUDO})])

        proxy = f"http://me:{PROXY}@192.0.2.1:3128"
        settings = {"name": "test-strict", "proxy": {"http": proxy, "https": proxy}}
        settings["addons"] = {"metrics_server": False, "local_path": False}
        self.theirs.inventory.touch(mode=0o600)
        self.theirs.inventory.write_text(
            f"cluster = {settings | more!r}\nmasters = {hosts('m1')}\nworkers = {hosts('w1')}\n"
        )

    def remember_keys(self) -> None:
        """Add canaries: for every key on the machines, a line that no other text has."""
        ask = (
            "for f in $(grep -rlE 'BEGIN [A-Z ]*PRIVATE KEY' /etc/kubernetes /etc/etcd /etc/haproxy "
            "/etc/containerd /etc/clusterctl /var/lib/kubelet/pki 2>/dev/null); do "
            "echo $f $(sed -n '/PRIVATE KEY/{n;p;q}' $f); done; "
            "for f in /etc/kubernetes/pki/encryption.key /etc/kubernetes/pki/network.key; do "
            "[ -e $f ] && echo $f $(head -n 1 $f); done; true"
        )
        for machine in ("m1", "w1"):
            for line in self.lab.on(machine, ask).splitlines():
                path, text = line.split()
                self.canaries[f"{machine}:{path} {len(self.canaries)}"] = text
        assert all(len(text) > 40 for name, text in self.canaries.items() if ":/" in name)


@pytest.fixture(scope="module")
def strict(kubectl_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    home = tmp_path_factory.mktemp("strict")
    (home / "tmp").mkdir()
    passphrase = home / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(PASSPHRASE + "\n")
    theirs = Lab(home / "theirs.py", kubectl_binary, home / "kubeconfig", state=home / "state")
    with pytest.MonkeyPatch.context() as patch:
        for lab in cluster("strict"):
            lab.clusterctl("machines up")
            for machine in lab.addresses():
                give_a_password(lab, machine)
            patch.setenv("CLUSTERCTL_PASSPHRASE_FILE", str(passphrase))
            patch.setenv("TMPDIR", str(home / "tmp"))
            names = [lab.container(machine) for machine in ("m1", "w1")]
            watch = Watch(run(ENGINE, "inspect", "-f", "{{.State.Pid}}", *names).stdout.split())
            addresses = lab.addresses()
            strict = Strict(lab, theirs, addresses, watch)
            strict.write_inventory()
            watch.start()
            try:
                strict.clusterctl("plan", check=False)
                strict.clusterctl("plan", "-o", "json", check=False)
                strict.clusterctl("up", "--yes")
                strict.remember_keys()
                yield strict
            finally:
                watch.end()


def give_a_password(lab: Lab, machine: str) -> None:
    keys = "/etc/ssh/authorized_keys.d"
    run(
        CLUSTERCTL, "ssh", lab.inventory, machine, "--", "sh", "-c",
        f"set -e; cp {keys}/root {keys}/{USER}; chpasswd; "
        f"echo '{USER} ALL=(ALL:ALL) ALL' >/etc/sudoers.d/{USER}",
        stdin=f"{USER}:{SUDO}\n",
    )  # fmt: skip


# Ports of the machines, from outside

# (machine, port): open to all clients; to machines of the cluster; to etcd members.
FOR_ALL = {("m1", 22), ("m1", 6443), ("m1", 7480), ("m1", 10256), ("w1", 22), ("w1", 10256)}
FOR_MACHINES = {("m1", 5000), ("m1", 10250), ("w1", 10250)}
FOR_MEMBERS = {("m1", 2379), ("m1", 2380)}
LISTENING = FOR_ALL | FOR_MACHINES | FOR_MEMBERS


def let_in(strict: Strict, came_from: str = "") -> set[tuple[str, int]]:
    """The ports in LISTENING that accept a connection from this computer, or from a machine."""
    doors = {(machine, port): f"{strict.addresses[machine]}/{port}" for machine, port in LISTENING}
    if came_from:
        knock = "timeout 5 bash -c ': </dev/tcp/'$d 2>/dev/null && echo $d"
        ask = f"for d in {' '.join(doors.values())}; do {knock}; done; true"
        opened = strict.lab.on(came_from, ask).split()
        return {door for door, where in doors.items() if where in opened}
    return {door for door in LISTENING if connects(strict.addresses[door[0]], door[1])}


def connects(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=5):
            return True
    except OSError:
        return False


def tables(strict: Strict, machine: str) -> list[str]:
    return strict.lab.on(machine, "nft list tables").splitlines()


def test_the_firewall_lets_in_what_is_needed_and_nothing_else(strict: Strict) -> None:
    # Without the firewall all ports accept connections. So the rules close the ports below.
    assert let_in(strict) == LISTENING
    strict.clusterctl("kubeconfig", "-o", strict.theirs.kubeconfig)
    strict.theirs.kubectl("apply", "-f", "-", stdin=SERVICE)

    strict.write_inventory(firewall=True)
    strict.clusterctl("up", "--yes")
    assert let_in(strict) == FOR_ALL
    assert let_in(strict, "w1") == FOR_ALL | FOR_MACHINES
    assert let_in(strict, "m1") == LISTENING

    strict.theirs.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=120s")
    # The pod is on w1: m1 forwards to it.
    for machine in ("m1", "w1"):
        url = f"http://{strict.addresses[machine]}:30080/hostname"
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.read() == b"web"
    # The apiserver reaches the kubelet.
    assert strict.theirs.kubectl("logs", "web").returncode == 0


def test_firewall_rules_that_lock_the_operator_out_are_undone_and_the_cause_is_named(
    strict: Strict,
) -> None:
    strict.write_inventory(firewall={"ssh_from": ["192.0.2.0/24"]})
    failed = strict.clusterctl("up", "--yes", check=False)
    assert failed.returncode == 10
    assert "a new SSH connection" in failed.stderr
    assert "ssh_from" in failed.stderr
    assert strict.lab.ssh("m1", "echo here").strip() == "here"
    enabled = "systemctl is-enabled clusterctl-firewall; true"
    assert strict.lab.on("m1", enabled).strip() == "disabled"
    strict.write_inventory(firewall=True)
    strict.clusterctl("up", "--yes")
    assert any("clusterctl-firewall" in table for table in tables(strict, "m1"))
    assert strict.lab.on("m1", enabled).strip() == "enabled"


@long(140)
def test_no_process_or_file_exposes_a_secret_while_commands_run(
    strict: Strict, tmp_path: Path
) -> None:
    before = len(strict.canaries)
    snapshot = tmp_path / "snapshot"
    for command in ("status", "check", "audit", "certs list", "trust fetch"):
        strict.clusterctl(command)
    strict.clusterctl("certs renew", "--all", "--yes")
    strict.clusterctl("secrets rotate-key", "--yes")
    strict.clusterctl("etcd snapshot", "-o", snapshot)
    strict.clusterctl("kubeconfig", "-o", strict.theirs.kubeconfig)
    strict.theirs.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(SECRET))
    strict.remember_keys()
    strict.watch.end()

    state = strict.theirs.state / "clusterctl"
    canaries = strict.canaries
    (identities,) = state.glob("identities")
    canaries["the snapshot's key"] = identities.read_text().split()[-1]
    key = LabSource().locate(inventory.read(strict.lab.inventory))["m1"].ssh.key
    canaries["the operator's SSH key"] = key.read_text().splitlines()[2]
    embedded = strict.theirs.kubeconfig.read_text().partition("client-key-data: ")[2]
    canaries["the kubeconfig's key"] = embedded[100:160]
    assert len(strict.watch.tokens) >= 1
    canaries |= {f"token {n}": text for n, text in enumerate(strict.watch.tokens)}
    assert len(set(canaries.values())) > before + 5

    assert strict.watch.rounds > 100
    assert any(
        kind == "cmdline" and b"kube-apiserver" in text for kind, _, text in strict.watch.seen
    )
    shown = {
        f"{name}: {kind} of {text[:80]!r}"
        for kind, owner, text in strict.watch.seen
        for name, canary in canaries.items()
        # Only root can read root's environments. containerd's holds the proxy's variables.
        if canary.encode() in text and (kind, owner, name) != ("environ", 0, "the proxy's password")
    }
    shown |= {
        f"{name}: printed"
        for name, canary in canaries.items()
        if any(canary in text for text in strict.said)
    }
    needles = "\n".join(canaries.values())
    patterns = tmp_path / "patterns"
    patterns.write_text(needles)
    for folder in (strict.theirs.state, os.environ["TMPDIR"]):
        holders = run("grep", "-rlF", "-f", patterns, folder, check=False).stdout.split()
        shown |= {holder for holder in holders if holder != str(identities)}
    shown |= {f"{p} is open" for p in state.rglob("*") if p.stat().st_mode & 0o077}
    for machine in ("m1", "w1"):
        shown |= {f"{machine}: {holder}" for holder in found_on(strict.lab, machine, needles)}
    assert shown == set()


def found_on(lab: Lab, machine: str, needles: str) -> list[str]:
    """Lines of the journal, and files with their modes, that must not hold a needle and do."""
    ask = (
        "umask 077; cat >/run/needles; "
        "journalctl --no-pager -o verbose | grep -F -f /run/needles | sed 's/^/journal: /'; "
        "for d in / /run /tmp /var/lib/etcd /var/lib/kubelet; do "
        "find $d -xdev -type f -not -path '/usr/*' -not -name needles "
        "-exec grep -lF -f /run/needles {} + 2>/dev/null; done | sort -u | xargs -r stat -c '%a %n'; "
        "rm /run/needles"
    )
    done = run(CLUSTERCTL, "ssh", lab.inventory, machine, "--", "sh", "-c", ask, stdin=needles)
    # These directories may hold keys, in closed files. Mode 640: BIRD reads it as its own user.
    proper = re.compile(r"6[04]0 /(etc|var/lib/kubelet/pki)/")
    return [line for line in done.stdout.splitlines() if not proper.match(line)]


def test_down_removes_only_clusterctls_own_nft_table(strict: Strict) -> None:
    strict.write_inventory(firewall=True)
    strict.clusterctl("up", "--yes")
    ours, theirs = "table inet clusterctl-firewall", "table inet foreign"
    for machine in ("m1", "w1"):
        strict.lab.on(machine, "nft add table inet foreign")
        assert {ours, theirs} <= set(tables(strict, machine))
    strict.clusterctl("down", "--yes")
    for machine in ("m1", "w1"):
        left = tables(strict, machine)
        assert theirs in left
        assert ours not in left
