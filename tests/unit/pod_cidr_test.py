"""The program that keeps a machine's pod network as its Node has it, run here on files."""

import json
import re
import subprocess
import time

import pytest

from provision.desired.catalog import desired
from provision.desired.components import pod_network
from tests.world import DEFAULT, PLAIN, trust

PREFIXES = ("/etc", "/var/lib", "/run", "/sys", "/opt")
SANDBOX = "5a" * 32
# What libcni keeps of a pod that has started, as Go writes JSON.
RESULT = (
    '{"kind":"cniCacheV1","containerId":"%(id)s","config":"e30=","ifName":"eth0","networkName":"pods",'
    '"netns":"%(netns)s","cniArgs":[["K8S_POD_NAMESPACE","default"],["K8S_POD_NAME","web"]],'
    '"capabilityArgs":{"io.kubernetes.cri.pod-annotations":{"x":"\\"result\\":{}"},'
    '"portMappings":[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":""}]},'
    '"result":{"cniVersion":"1.0.0","dns":{},"interfaces":[{"name":"cni0"},{"name":"eth0",'
    '"sandbox":"%(netns)s"}],"ips":[{"address":"10.244.3.7/24","interface":1}]}}'
)
# Pretty-printed, as the API answers curl; managedFields name the fields too.
NODE = """\
{
  "metadata": {"managedFields": [{"fieldsV1": {"f:spec": {"f:podCIDR": {}}}}]},
  "spec": {
    "podCIDR": "%s",
    "podCIDRs": [
      "%s"
    ]
  }
}
"""


class Node:
    """A machine below a directory. Its programs `curl`, `ip` and `birdc` are stand-ins."""

    route_mtu = ""

    def __init__(self, root):
        self.root = root
        (state,) = (desired(DEFAULT, DEFAULT.machine("w1"), trust(), PLAIN)["pod-network"],)
        files = {file.path: file.content.decode() for file in state.files}
        self.write(pod_network.TEMPLATE, files[pod_network.TEMPLATE])
        self.program = self.moved(files[pod_network.SCRIPT])
        self.bin = root / "bin"
        self.bin.mkdir()
        for directory in (pod_network.LEASES, pod_network.ROUTES, pod_network.CNI_CONFIG):
            self.at(directory).mkdir(parents=True)
        self.write("/sys/class/net/eth7/mtu", "1450\n")
        self.fake("birdc", "")
        self.fake("chgrp", "")
        self.fake(
            "sleep",
            '[ ! -e "$root/slept" ] || touch "$root/slept-twice"; touch "$root/slept"; [ "$1" != 10 ] || touch "$root/settled"; exec /bin/sleep 0.02',
        )
        self.addresses("")

    def moved(self, text):
        return re.sub(rf"(?<![\w/@:])({'|'.join(PREFIXES)})(?=/)", rf"{self.root}\1", text)

    def at(self, path):
        return self.root / path.lstrip("/")

    def write(self, path, content):
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).write_text(content)

    def fake(self, name, body):
        """`$root` is the machine's directory; calls are written down."""
        path = self.bin / name
        path.write_text(f'#!/bin/sh\nroot={self.root}\necho "{name} $*" >>"$root/calls"\n{body}\n')
        path.chmod(0o755)

    def addresses(self, bridge):
        """What `ip` prints: the machine's interface, and the bridge's address."""
        self.fake(
            "ip",
            'case "$*" in\n'
            '"-o -4 address show to "*) echo "2: eth7    inet 192.0.2.21/24" ;;\n'
            f'"-o -4 address show dev cni0") [ -z "{bridge}" ] || echo "3: cni0    inet {bridge} brd" ;;\n'
            '"netns pids "*) ;;\n'
            f'"-4 route show default "*) echo "default via 192.0.2.1 {self.route_mtu}" ;;\n'
            "esac",
        )

    def api(self, cidr):
        """What the API says: the Node's CIDR, or nothing."""
        self.write("/answer", NODE % (cidr, cidr) if cidr else "")
        self.fake("curl", 'cat "$root/answer"')

    def pod_with_host_port(self):
        """A pod that runs, and a `portmap` that writes down its input."""
        namespace = self.at("/run/netns/cni-1234")
        self.write("/run/netns/cni-1234", "")
        self.write(
            f"{pod_network.RESULTS}/pods-{SANDBOX}-eth0",
            RESULT % {"id": SANDBOX, "netns": namespace},
        )
        self.write("/opt/cni/bin/portmap", "")
        self.at("/opt/cni/bin/portmap").chmod(0o755)
        self.at("/opt/cni/bin/portmap").write_text(
            f"#!/bin/sh\ncat >{self.root}/input\n"
            f'echo "portmap $CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS" >>{self.root}/calls\n'
        )
        return namespace

    def run(self, until="settled"):
        """Run the program until it waits for the next change."""
        for marker in (until, "slept"):
            (self.root / marker).unlink(missing_ok=True)
        env = {"PATH": f"{self.bin}:/usr/bin:/bin"}
        with subprocess.Popen(
            ["sh", "-c", self.program], env=env, stderr=subprocess.PIPE
        ) as process:
            end = time.monotonic() + 10
            while not (self.root / until).exists() and time.monotonic() < end:
                time.sleep(0.01)
            process.kill()
            assert (self.root / until).exists(), process.stderr.read()
        return self.calls()

    def calls(self):
        return (self.root / "calls").read_text().splitlines()

    def config(self):
        return self.at(pod_network.CONFLIST).read_text()


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_the_configuration_has_the_nodes_part_of_the_network_and_the_interfaces_mtu(node):
    node.api("10.244.3.0/24")

    calls = node.run()

    assert '"subnet": "10.244.3.0/24"' in node.config()
    assert '"mtu": 1450,' in node.config()
    assert node.at(pod_network.CONFLIST).stat().st_mode & 0o777 == 0o600
    route = node.at(f"{pod_network.ROUTES}/pod-cidr.conf").read_text()
    assert route == "route 10.244.3.0/24 unreachable;\n"
    assert any(call.startswith("birdc") for call in calls)
    assert not any("delete" in call for call in calls)


def test_a_node_that_came_back_with_another_part_loses_the_pods_of_the_old_one(node):
    node.api("10.244.3.0/24")
    node.run()
    node.addresses("10.244.3.1/24")
    node.write(f"{pod_network.LEASES}/10.244.3.7", "pod")
    node.write("/sys/class/net/cni0/mtu", "1450\n")
    node.write(f"{pod_network.LEASES}/lock", "")
    node.write("/sys/class/net/cni0/brif/veth1/x", "")
    node.write("/sys/class/net/veth1/mtu", "1450\n")

    node.api("10.244.8.0/24")
    calls = node.run()

    assert '"subnet": "10.244.8.0/24"' in node.config()
    assert "ip link delete veth1" in calls
    assert "ip link delete cni0" in calls
    assert [file.name for file in node.at(pod_network.LEASES).iterdir()] == ["lock"]
    route = node.at(f"{pod_network.ROUTES}/pod-cidr.conf").read_text()
    assert route == "route 10.244.8.0/24 unreachable;\n"


def test_without_an_answer_the_node_keeps_what_it_has(node):
    node.api("10.244.3.0/24")
    node.run()
    before = node.config()
    node.addresses("10.244.3.1/24")

    node.api("")
    calls = node.run(until="slept")

    assert node.config() == before
    assert not any("delete" in call for call in calls)


def test_pods_that_run_follow_a_changed_mtu(node):
    node.api("10.244.3.0/24")
    node.addresses("10.244.3.1/24")
    node.write("/sys/class/net/cni0/mtu", "1500\n")
    node.write("/sys/class/net/cni0/brif/veth1/x", "")
    node.write("/sys/class/net/veth1/mtu", "1450\n")
    node.write("/run/netns/cni-1234", "")

    calls = node.run()

    assert "ip link set veth1 mtu 1450" in calls
    assert "ip -netns cni-1234 link set eth0 mtu 1450" in calls
    assert "ip link set cni0 mtu 1450" in calls
    assert not any("delete" in call for call in calls)


def test_an_mtu_that_cannot_be_read_replaces_no_configuration(node):
    node.api("10.244.3.0/24")
    node.run()
    before = node.config()
    node.at("/sys/class/net/eth7/mtu").unlink()

    node.run(until="slept")

    assert node.config() == before


@pytest.mark.parametrize(
    ("route", "mtu"),
    [("dev eth7 mtu 1400", 1400), ("mtu lock 1400 dev eth7", 1400), ("mtu 9000", 1450)],
)
def test_the_mtu_is_the_smallest_of_the_interface_and_its_routes(node, route, mtu):
    node.api("10.244.3.0/24")
    node.route_mtu = route
    node.addresses("")

    node.run()

    assert f'"mtu": {mtu},' in node.config()


def test_rules_of_a_host_port_that_were_deleted_come_back(node):
    node.api("10.244.3.0/24")
    namespace = node.pod_with_host_port()
    node.fake("nft", "exit 1")  # there is no such table

    # A pod that ends loses its rules shortly before its result.
    assert not any(call.startswith("portmap") for call in node.run(until="slept"))

    calls = node.run(until="slept-twice")

    assert f"portmap ADD {SANDBOX} {namespace}" in calls
    told = json.loads((node.root / "input").read_text())
    assert (told["type"], told["backend"], told["name"]) == ("portmap", "nftables", "pods")
    (mapping,) = told["runtimeConfig"]["portMappings"]
    assert (mapping["HostPort"], mapping["ContainerPort"]) == (8080, 80)
    assert told["prevResult"]["ips"][0]["address"] == "10.244.3.7/24"


def test_rules_that_are_there_or_whose_pod_has_ended_are_left_alone(node):
    node.api("10.244.3.0/24")
    namespace = node.pod_with_host_port()
    node.fake("nft", f'echo "tcp dport 8080 dnat to 10.244.3.7:80 comment \\"{SANDBOX}\\""')
    assert not any(call.startswith("portmap") for call in node.run(until="slept-twice"))

    node.fake("nft", "exit 1")
    namespace.unlink()
    assert not any(call.startswith("portmap") for call in node.run(until="slept-twice"))
