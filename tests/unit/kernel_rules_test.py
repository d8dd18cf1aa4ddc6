"""The kernel is asked whether it takes the rules that the cluster needs."""

import os
import re
import shutil
import subprocess

import pytest

from provision.desired.kernel_rules import rules
from provision.model import paths
from provision.observe import script
from provision.observe.parse import parse
from provision.observe.script import Query, query
from tests import world

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
as_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="nft needs root")
# nft as on a kernel that has no nft_masq, and cannot filter both IPv4 and IPv6 in one table.
POOR = """\
nft() {
    [ "$1" = -c ] || return 0
    case $(cat) in
    *masquerade*) echo 'Error: Could not process rule: No such file or directory' >&2; return 1 ;;
    *"table inet"*) echo 'Error: Could not process rule: Operation not supported' >&2; return 1 ;;
    esac
}
"""
DENIED = "nft() { echo 'Error: Could not process rule: Operation not permitted' >&2; return 1; }\n"


@pytest.fixture(autouse=True)
def new(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RECORD", str(tmp_path / "none"))


def every():
    of = world.cluster(firewall={"enabled": True})
    return rules(of, of.masters[0])


def look(before, asked, shell="sh"):
    program = before + Query("127.0.0.1", rules=asked).program()
    output = subprocess.run([shell, "-c", program], capture_output=True, text=True, check=True)
    return output.stdout


def missing(output):
    return parse("here", output, 0, 0).host.missing


def test_a_machine_is_asked_about_the_rules_that_it_gets():
    of = world.cluster(firewall={"enabled": True})
    other = world.cluster(networks={"proxy_mode": "iptables"})

    assert {"NF_TABLES_INET", "nft_masq", "nft_numgen"} < set(rules(of, of.masters[0]))
    assert "nft_masq" in rules(other, other.masters[0])
    assert {"NF_TABLES_INET", "nft_numgen"}.isdisjoint(rules(other, other.masters[0]))
    assert query(of, of.masters[0], reachability=True).rules == rules(of, of.masters[0])
    assert query(of, of.masters[0]).rules == {}
    own = world.cluster(networks={"plugin": "custom", "proxy_mode": "none"})
    assert rules(own, own.masters[0]) == {}


@as_root
@pytest.mark.parametrize("shell", SHELLS)
def test_this_kernel_takes_all_of_them_and_keeps_none(shell):
    output = look("", every(), shell)

    assert "@@ refused-rules\n@@ " in output
    assert {*every()}.isdisjoint(missing(output))
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert "clusterctl-check" not in tables.stdout


@as_root
def test_each_rule_is_one_that_nft_understands():
    for name, rule in every().items():
        nft = subprocess.run(
            ["nft", "-c", "-f", "-"], input=rule, capture_output=True, text=True, check=False
        )
        assert "syntax error" not in nft.stderr, name


@as_root
@pytest.mark.parametrize("shell", SHELLS)
def test_what_the_kernel_lacks_is_named_and_other_errors_are_no_verdict(shell):
    lacks = {"NF_TABLES_INET", "nft_ct", "nft_reject_inet", "nft_masq"}

    assert {*missing(look(POOR, every(), shell))} >= lacks
    assert {*every()} - {*missing(look(POOR, every(), shell))} == {*every()} - lacks
    assert {*every()}.isdisjoint(missing(look(DENIED, every(), shell)))


@as_root
@pytest.mark.parametrize("shell", SHELLS)
def test_modules_are_those_that_the_running_kernel_can_load(shell, tmp_path, monkeypatch):
    loaded = tmp_path / "loaded"
    loaded.write_text("overlay 200704 0 - Live 0x0\n")
    monkeypatch.setattr(script, "LOADED_MODULES", str(loaded))
    monkeypatch.setattr(script, "MODULES", str(tmp_path / "modules"))
    (tmp_path / "modules").mkdir()
    asked = dict.fromkeys(("nft_masq", "nft_no_such", "nft_chain_nat"), "no rule")

    def view():
        # The machine that runs the tests may be a container.
        own = re.sub("(?m)^container=.*", "container=none", look(DENIED, asked, shell))
        return parse("here", own, 0, 0).host

    of = tmp_path / "modules" / os.uname().release
    of.mkdir()
    (of / "modules.dep").write_text(
        "kernel/net/netfilter/nft_masq.ko.xz: kernel/net/netfilter/nf-tables.ko\n"
        "kernel/fs/overlayfs/overlay.ko.zst:\n"
    )
    (of / "modules.builtin").write_text("kernel/net/netfilter/nft-chain-nat.ko\n")
    whole = view()
    assert "nft_no_such" in whole.missing
    assert {"nft_masq", "nft_chain_nat", "overlay"}.isdisjoint(whole.missing)
    assert not whole.outdated

    of.rename(tmp_path / "modules/6.0.0-newer")
    upgraded = view()
    assert upgraded.outdated
    assert "nft_no_such" in upgraded.missing

    # Everything may be built into a kernel that has loaded no module.
    loaded.write_text("")
    assert not view().outdated
