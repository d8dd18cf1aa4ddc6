"""Debian's own programs read what clusterctl writes: those of Debian 11, 12, 13 and sid.

Their versions bracket those of Ubuntu. The programs run in a chroot, with a network of their own,
and only check. Without root, apt or the archive these tests are skipped.
"""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.desired.catalog import desired
from provision.desired.components import firewall, haproxy, keepalived, pod_network
from provision.desired.packages import NAMES
from provision.model import paths
from provision.model.distribution import Proof, find, parse
from provision.model.settings.network import Networks
from provision.model.settings.security import Firewall
from provision.pki.leaf import issue
from tests.integration import debian
from tests.world import NOW, PLAIN, cluster, trust

CLUSTER = cluster(firewall=Firewall(enabled=True), networks=Networks(proxy_mode="iptables"))
# The commands in the namespaces: `unshare` makes them, and they end with the process.
INSIDE = """
ip link set lo up && ip link add ens5 type veth peer name other &&
ip address add 10.77.0.11/24 dev ens5 && ip link set ens5 up || exit 125
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/work" "$work/root" || exit 125
mount --rbind /dev "$work/root/dev" && mount --rbind /sys "$work/root/sys" &&
mount -t proc proc "$work/root/proc" && mount -t tmpfs tmpfs "$work/root/run" || exit 125
cd / && exec chroot "$work/root" "$@"
"""


class Machine:
    """Programs of a suite, and the files of a master on them."""

    def __init__(self, suite, work):
        self.lower, self.work = debian.root(suite), work
        for name in ("upper", "work", "root"):
            (work / name).mkdir()
        self.distribution = find("debian", (), debian.SUITES[suite])
        facts = replace(PLAIN, distribution=self.distribution)
        states = desired(CLUSTER, CLUSTER.machine("m1"), trust(), facts)
        for state in states.values():
            for file in state.files:
                self.write(file.path, file.content, file.mode)
            for binary in state.binaries:
                self.write(binary.path, b"", 0o755)
            for leaf in state.leaves:
                issued = issue(leaf, trust(), NOW)
                self.write(leaf.cert_path, issued.certificate)
                self.write(leaf.key_path, issued.key)
        self.write(f"{pod_network.ROUTES}/own.conf", b"route 10.244.1.0/24 blackhole;\n")
        self.units = [
            file.path
            for state in states.values()
            for file in state.files
            if file.path.startswith(f"{paths.UNITS}/")
        ]

    def write(self, path, content, mode=0o644):
        file = self.work / "upper" / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)

    def says(self, *command):
        """What a program says about a file that it accepts."""
        done = subprocess.run(
            ["unshare", "--mount", "--net", "sh", "-c", INSIDE, "sh", *command],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL": "C",
                "HOME": "/root",
                "SYSTEMD_LOG_COLOR": "0",
                "lower": str(self.lower),
                "work": str(self.work),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{said}"
        return said


@pytest.fixture(scope="module", params=debian.SUITES)
def machine(request, tmp_path_factory):
    if lacking := debian.missing():
        pytest.skip(lacking)
    try:
        return Machine(request.param, tmp_path_factory.mktemp(request.param))
    except debian.UnavailableError as error:
        pytest.skip(f"no packages of {request.param}: {error}")


def test_haproxy(machine):
    # What the unit does first, where HAProxy wants it.
    if joined := re.search(r"ExecStartPre=/bin/sh -c '(.*)'", _unit(machine, haproxy.UNIT)):
        check = f"mkdir {Path(haproxy.JOINED).parent} && {joined[1]} && exec /usr/sbin/haproxy "
    else:
        check = "exec /usr/sbin/haproxy "

    said = machine.says("sh", "-c", f"{check} -Ws -c -f {haproxy.CONFIG}")

    assert "WARNING" not in said


def test_keepalived(machine):
    said = machine.says(
        "/usr/sbin/keepalived", "--config-test", "--log-console", "-f", keepalived.CONFIG
    )

    assert "nknown keyword" not in said


@pytest.mark.parametrize("program", ["bird", "bird3"])
def test_bird(machine, program):
    if not (machine.lower / "usr/sbin" / program).exists():
        pytest.skip(f"the release has no {program}")
    said = machine.says(f"/usr/sbin/{program}", "-p", "-c", pod_network.CONFIG)

    # BIRD's advice for `hello 2`, in each version's spelling.
    assert re.fullmatch(r"(bird: .*Hello or poll interval less that 5 makes crypt.*\n)?", said)


@pytest.mark.parametrize("rules", [pod_network.RULES, firewall.RULES])
def test_nft(machine, rules):
    assert machine.says("/usr/sbin/nft", "-c", "-f", rules) == ""


def test_systemd(machine):
    said = machine.says("systemd-analyze", "--man=no", "verify", *machine.units)

    ours = [line for line in said.splitlines() if "clusterctl" in line or "kube" in line]
    assert ours == []


def _unit(machine, name):
    return (machine.work / "upper" / f"{paths.UNITS}/{name}".removeprefix("/")).read_text()


def test_debian_has_the_packages_in_the_versions_of_the_table(machine):
    versions = json.loads((machine.lower / debian.VERSIONS).read_text())
    distribution = machine.distribution

    assert set(distribution.packages(*NAMES)) <= set(versions)
    if distribution.proof is not Proof.NOTHING:
        known = {
            "haproxy": distribution.haproxy,
            "keepalived": distribution.keepalived,
            "bird2": distribution.bird,
            "nftables": distribution.nftables,
            "systemd": (distribution.systemd,),
        }
        for package, version in known.items():
            upstream = versions[package].rpartition(":")[2].partition("-")[0]
            assert parse(upstream)[: len(version)] == version, package
