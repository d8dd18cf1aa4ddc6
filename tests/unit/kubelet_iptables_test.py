"""After `down`, nothing is left of the chains that a kubelet makes with iptables."""

import os
import re
import shutil
import subprocess

import pytest

from provision.desired.components.node import IPTABLES_CLEANUP

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0
    or not all(map(shutil.which, ("unshare", "nft", "iptables-nft", "ip6tables-nft")))
    or subprocess.run(["unshare", "-n", "true"], check=False).returncode != 0,  # noqa: S607
    reason="needs root, network namespaces, iptables and nft",
)

# As in `syncIPTablesRules` of the kubelet's source.
KUBELET = """
for i in iptables ip6tables; do
    for t in mangle nat filter; do $i -t $t -N KUBE-KUBELET-CANARY; done
    $i -t mangle -N KUBE-IPTABLES-HINT
done
iptables -N KUBE-FIREWALL
iptables -I OUTPUT -j KUBE-FIREWALL
iptables -I INPUT -j KUBE-FIREWALL
iptables -A KUBE-FIREWALL -m comment --comment 'block incoming localnet connections' \\
    -d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
"""
OF_THE_MACHINE = {
    "nothing": "",
    "a rule": "iptables -A INPUT -p tcp --dport 25 -j REJECT",
    "a policy": "iptables -P FORWARD DROP",
    "an empty chain": "ip6tables -N MINE",
    "a table of nft": "nft add table inet mine; nft add chain inet mine input",
}


def ruleset(tmp_path, *programs):
    """The rules of a network namespace of its own where these programs ran."""
    for name in ("iptables", "ip6tables"):
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).symlink_to(shutil.which(f"{name}-nft"))
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", "\n".join((*programs, "nft list ruleset"))],  # noqa: S607
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    # In a table with rules of the machine iptables' own chains may stay, empty: they change nothing.
    empty = r"\tchain \w+ {\n\t\ttype .* policy accept;\n\t}\n"
    return "".join(re.sub(empty, "", done.stdout).split("\n"))


@pytest.mark.parametrize("rules", OF_THE_MACHINE.values(), ids=OF_THE_MACHINE)
def test_rules_are_as_before_the_kubelet(tmp_path, rules):
    before = ruleset(tmp_path, rules)

    assert "KUBE-FIREWALL" in ruleset(tmp_path, rules, KUBELET)
    after = ruleset(tmp_path, rules, KUBELET, IPTABLES_CLEANUP)

    assert after == before, after
