"""What `down` runs on a machine, run here in a directory that stands for the machine.

Programs that would reach outside it (systemctl, nft, umount, ...) only write down their calls.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from provision.apply import teardown
from provision.desired.catalog import desired
from provision.model import paths
from provision.plan.record import Removal
from tests.world import DEFAULT, PLAIN, trust

OUTSIDE = ("systemctl", "nft", "umount", "apt-get", "dnf", "userdel", "groupdel", "ip")


@pytest.fixture
def root(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in OUTSIDE:
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/calls\n')
        (tools / name).chmod(0o755)
    return tmp_path


def record(root, *lines, component="component"):
    directory = root / "state" / "record"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / component).write_text("".join("\t".join(line) + "\n" for line in lines))


def recorded(root):
    """Component -> its lines."""
    return {
        path.name: [tuple(line.split("\t")) for line in path.read_text().splitlines()]
        for path in (root / "state" / "record").iterdir()
    }


def run(root, *removals):
    """`down`, or the removal of these."""
    program = teardown.PRUNE if removals else teardown.DOWN
    program = program.replace(paths.STATE, str(root / "state"))
    program = program.replace(paths.SYSCTLS, str(root / "sysctl.d" / "clusterctl.conf"))
    program = program.replace("kernel=/proc/sys", f"kernel={root}/proc/sys")
    program = program.replace("interfaces=/sys", f"interfaces={root}/sys")
    program = program.replace("'^/usr/'", f"'^{root}/usr/'")
    done = subprocess.run(
        ["sh", "-c", program],
        env={**os.environ, "PATH": f"{root / 'tools'}:{os.environ['PATH']}"},
        input=teardown.unwanted(removals) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    calls = root / "calls"
    return done, calls.read_text().splitlines() if calls.exists() else []


def put(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_machine_without_a_record_is_left_alone(root):
    done, calls = run(root)

    assert done.returncode == 0, done.stderr
    assert calls == []


@pytest.mark.parametrize("name", ["m1", "w1"])
def test_each_unit_is_stopped_before_what_it_needs(root, name):
    states = desired(DEFAULT, DEFAULT.machine(name), trust(), PLAIN).values()
    files = {f.path.rpartition("/")[2]: f.content.decode() for s in states for f in s.files}
    units = sorted(unit.name for state in states for unit in state.units)
    record(root, *(("unit", unit, "digest") for unit in units), ("unit", "unknown.service", ""))

    done, calls = run(root)

    assert done.returncode == 0, done.stderr
    (stopped,) = [call.split()[3:] for call in calls if call.startswith("systemctl --quiet stop")]
    assert sorted(stopped) == [*units, "unknown.service"]
    needs = [
        (unit, needed)
        for unit in units
        for line in files[unit].splitlines()
        for needed in line.removeprefix("After=").split()
        if line.startswith("After=") and needed in units
    ]
    assert needs
    for unit, needed in needs:
        assert stopped.index(unit) < stopped.index(needed), (unit, needed)


def test_recorded_paths_are_removed_and_others_stay(root):
    ours = put(root / "etc" / "ours" / "file")
    foreign = put(root / "etc" / "theirs")
    cert, key = put(root / "etc" / "ours" / "a.crt"), put(root / "etc" / "ours" / "a.key")
    binary = put(root / "bin" / "kubelet")
    left = put(root / "var" / "kubelet" / "pods" / "deep" / "file").parents[2]
    record(
        root,
        ("dir", f"{root}/etc/ours"),
        ("dir", f"{root}/etc"),
        ("file", str(ours)),
        ("cert", str(cert)),
        ("key", str(key), "f00d"),
        ("binary", str(binary), "pin", "1.0", "sha", "1", "2", "3", "4"),
        ("leftover", str(left)),
        ("leftover", f"{root}/var/never-made"),
        ("unit", "kubelet.service", "digest"),
    )

    done, calls = run(root)

    assert done.returncode == 0, done.stderr
    for path in (ours, cert, key, binary, left, root / "etc" / "ours", root / "state"):
        assert not path.exists(), path
    assert foreign.exists()
    assert "systemctl --quiet stop kubelet.service" in calls
    assert "systemctl --quiet disable kubelet.service" in calls
    assert not any("flush" in call or "restart" in call for call in calls)


def test_a_partial_file_of_a_killed_run_is_removed_too(root):
    half = put(root / "etc" / "file.clusterctl-new")
    record(root, ("file", f"{root}/etc/file"))

    assert run(root)[0].returncode == 0
    assert not half.exists()


def test_a_link_is_removed_and_not_followed(root):
    elsewhere = put(root / "data" / "precious")
    (root / "var").mkdir()
    (root / "var" / "link").symlink_to(elsewhere.parent)
    record(root, ("leftover", f"{root}/var/link"))

    assert run(root)[0].returncode == 0
    assert not (root / "var" / "link").exists()
    assert elsewhere.exists()


def test_directories_of_the_system_stay_even_when_they_are_empty(root):
    (root / "usr" / "local" / "sbin").mkdir(parents=True)
    script = put(root / "usr" / "local" / "sbin" / "ours")
    record(root, ("dir", str(script.parent)), ("file", str(script)))

    assert run(root)[0].returncode == 0
    assert not script.exists()
    assert script.parent.exists()


def test_packages_and_users_that_clusterctl_added_are_removed(root):
    record(root, ("package", "haproxy"), ("package", "bird2"), ("user", "etcd"))

    done, calls = run(root)

    assert done.returncode == 0, done.stderr
    assert "apt-get purge -y -qq bird2 haproxy" in calls
    assert "userdel etcd" in calls


def test_units_stop_before_cleanup_and_each_cleanup_runs_even_if_one_fails(root):
    record(
        root,
        ("unit", "etcd.service", "digest"),
        ("cleanup", f"""echo "the first" | tr a-z A-Z >>{root}/calls; exit 1"""),
        ("cleanup", f"for n in 2; do echo $n >>{root}/calls; done"),
    )

    done, calls = run(root)

    assert done.returncode == 0, done.stderr
    assert calls.index("systemctl --quiet stop etcd.service") < calls.index("THE FIRST")
    assert calls.index("THE FIRST") < calls.index("2")


def kernel(root, name, value):
    return put(root / "proc" / "sys" / name, f"{value}\n")


def test_kernel_settings_get_their_earlier_values(root):
    forward = kernel(root, "net/ipv4/ip_forward", 1)
    conf = put(root / "sysctl.d" / "clusterctl.conf", "net.ipv4.ip_forward = 1\n")
    record(root, ("sysctl", str(forward), "0", "1"), component="kernel")
    record(root, ("file", str(conf)))

    done, _ = run(root)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert forward.read_text() == "0\n"
    assert not conf.exists()


def test_a_kernel_setting_that_another_program_changed_stays(root):
    panic = kernel(root, "kernel/panic", 60)
    record(root, ("sysctl", str(panic), "0", "10"), component="kernel")

    assert run(root)[0].returncode == 0
    assert panic.read_text() == "60\n"


@pytest.mark.parametrize("user", ["sys/class/net/docker0/mtu", "sysctl.d/90-vpn.conf"])
def test_forwarding_that_other_software_needs_stays(root, user):
    forward = kernel(root, "net/ipv4/ip_forward", 1)
    put(root / user, "net.ipv4.ip_forward=1\n")
    record(root, ("sysctl", str(forward), "0", "1"), component="kernel")

    assert run(root)[0].returncode == 0
    assert forward.read_text() == "1\n"


def test_a_kernel_setting_that_no_longer_exists_is_no_failure(root):
    record(root, ("sysctl", f"{root}/proc/sys/net/bridge/gone", "0", "1"), component="kernel")

    done, _ = run(root)

    assert (done.returncode, done.stderr) == (0, "")
    assert not (root / "proc").exists()


def test_kernel_settings_without_an_earlier_value_stay_and_are_named(root):
    forward = kernel(root, "net/ipv4/ip_forward", 1)
    memory = kernel(root, "vm/overcommit_memory", 1)
    kernel(root, "kernel/panic", 60)
    text = "# Written\nnet.ipv4.ip_forward = 1\nvm.overcommit_memory = 1\nkernel.panic = 10\n"
    conf = put(root / "sysctl.d" / "clusterctl.conf", text)
    record(root, ("sysctl", str(memory), "0", "1"), component="kernel")
    record(root, ("file", str(conf)))

    done, _ = run(root)

    assert (done.returncode, done.stdout) == (0, "net.ipv4.ip_forward = 1\n")
    assert (forward.read_text(), memory.read_text()) == ("1\n", "0\n")


def test_the_kubelets_cleanup_stops_the_slices_of_pods(root):
    states = desired(DEFAULT, DEFAULT.machine("w1"), trust(), PLAIN)
    command = next(c for c in states["kubelet"].cleanup.split("; ") if "kubepods.slice" in c)
    record(root, ("cleanup", command))

    assert "systemctl stop kubepods.slice" in run(root)[1]


def test_running_it_again_does_nothing(root):
    record(root, ("file", str(put(root / "etc" / "file"))), ("unit", "a.service", "digest"))
    assert run(root)[0].returncode == 0
    (root / "calls").unlink()

    done, calls = run(root)

    assert (done.returncode, calls) == (0, [])


def test_paths_that_cannot_be_removed_are_named_and_stay_in_the_record(root):
    (root / "tools" / "rm").write_text(
        '#!/bin/sh\ncase "$*" in */stuck*) ;; *) exec /bin/rm "$@" ;; esac\n'
    )
    (root / "tools" / "rm").chmod(0o755)
    record(root, ("file", str(put(root / "etc" / "stuck"))), ("package", "haproxy"))

    done, _ = run(root)

    assert done.returncode == 1
    assert f"still there: {root}/etc/stuck" in done.stderr
    assert recorded(root)["component"]


# A part of it


def test_a_part_is_removed_and_leaves_the_record_the_rest_stays(root):
    gone, stays = put(root / "etc" / "gone"), put(root / "etc" / "stays")
    record(
        root,
        ("unit", "old.service", "digest"),
        ("file", str(gone)),
        ("file", str(stays)),
        ("unit", "new.service", "digest"),
        ("cleanup", f"echo cleaned >>{root}/calls"),
    )
    record(root, ("package", "keepalived"), component="packages")
    before = recorded(root)

    done, calls = run(
        root, Removal("component", (("unit", "old.service", "digest"), ("file", str(gone))))
    )

    assert done.returncode == 0, done.stderr
    assert not gone.exists()
    assert stays.exists()
    assert calls == [
        "systemctl --quiet stop old.service",
        "systemctl --quiet disable old.service",
        "systemctl daemon-reload",
        "systemctl reset-failed old.service",
    ]
    assert recorded(root) == {
        "component": before["component"][2:],
        "packages": before["packages"],
    }


def test_a_pruned_component_is_cleaned_up_and_its_record_removed(root):
    shared = put(root / "etc" / "shared")
    lines = (
        ("file", str(put(root / "etc" / "own" / "file"))),
        ("dir", f"{root}/etc/own"),
        ("cleanup", f"echo cleaned >>{root}/calls"),
    )
    record(root, *lines, ("file", str(shared)), component="keepalived")
    record(root, ("file", str(shared)), component="other")

    done, calls = run(
        root, Removal("keepalived", lines, forget=(("file", str(shared)),), whole=True)
    )

    assert done.returncode == 0, done.stderr
    assert calls == ["cleaned"]
    assert shared.exists()
    assert not (root / "etc" / "own").exists()
    assert set(recorded(root)) == {"other"}


def test_several_components_go_at_once_and_each_record_loses_its_own_lines(root):
    binary = put(root / "bin" / "kube-proxy")
    wide = ("binary", str(binary), "pin", "1.0", "sha", "1", "2", "3", "4")
    record(root, wide, ("images", "pin"), component="artifacts")
    record(
        root, ("cleanup", f"{binary} --cleanup; echo ran >>{root}/calls"), component="kube-proxy"
    )

    done, calls = run(
        root,
        Removal("artifacts", (wide,)),
        Removal(
            "kube-proxy", (("cleanup", f"{binary} --cleanup; echo ran >>{root}/calls"),), whole=True
        ),
    )

    assert done.returncode == 0, done.stderr
    assert calls == ["ran"]
    assert not binary.exists()
    assert recorded(root) == {"artifacts": [("images", "pin")]}


@pytest.mark.parametrize("victim", ["rm", "rmdir", "mv", "sync", "awk"])
@pytest.mark.parametrize("call", range(1, 7))
def test_a_removal_that_is_killed_anywhere_is_finished_by_the_next(root, victim, call):
    """A `victim` on PATH kills the program's shell at its n-th call."""
    lines = tuple(("file", str(put(root / "etc" / "own" / name))) for name in ("a", "b")) + (
        ("dir", f"{root}/etc/own"),
    )
    record(root, *lines, ("file", str(put(root / "etc" / "stays"))), component="c")
    removal = Removal("c", lines)
    shim = root / "tools" / victim
    shim.write_text(
        f"#!/bin/sh\necho >> {root}/count\n"
        f'[ $(wc -l < {root}/count) != {call} ] || kill -KILL $PPID\nexec {shutil.which(victim)} "$@"\n'
    )
    shim.chmod(0o755)

    run(root, removal)
    for path in [line[1] for line in lines]:
        assert not Path(path).exists() or path in {line[1] for line in recorded(root)["c"]}
    shim.unlink()
    done, _ = run(root, removal)

    assert done.returncode == 0, done.stderr
    assert not (root / "etc" / "own").exists()
    assert {name: x for name, x in recorded(root).items() if not name.endswith("-new")} == {
        "c": [("file", f"{root}/etc/stays")]
    }
