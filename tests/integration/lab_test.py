"""The lab with a real container engine. OpenSSH, systemd and apt check its machines."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from provision.inventory import Draft, HostEntry
from provision.local.progress import Silent
from provision.machines import container_engine, inotify
from provision.machines.lab import Lab
from provision.machines.lab_names import lab_id
from provision.model.cluster import Role
from provision.model.errors import MachinesError
from provision.model.settings.local import Lab as LabSettings
from tests.e2e.sample import EVERYTHING, seed

pytestmark = pytest.mark.lab


def draft_of(directory, *names, image="full"):
    hosts = tuple(HostEntry(name=name, roles=frozenset({Role.MASTER})) for name in names)
    return Draft(
        name="labtest",
        source="lab",
        inventory=directory / "inventory.py",
        lab=LabSettings(image=image),
        hosts=hosts,
    )


@pytest.fixture(scope="module", autouse=True)
def state(tmp_path_factory):
    """The tests' own state directory."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("state")
        patch.setenv("XDG_STATE_HOME", str(directory))
        yield directory


@pytest.fixture(scope="module")
def inventory(tmp_path_factory):
    return tmp_path_factory.mktemp("full")


@pytest.fixture(scope="module")
def full(inventory):
    draft = draft_of(inventory, "m1", "m2", "w1")
    try:
        Lab().create(draft, Silent())
        yield draft
    finally:
        Lab().destroy(draft, Silent())


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    draft = draft_of(tmp_path_factory.mktemp("bare"), "b1", image="bare")
    try:
        Lab().create(draft, Silent())
        yield draft
    finally:
        Lab().destroy(draft, Silent())


@pytest.fixture
def ssh(tmp_path):
    """Run a command with the OpenSSH client. It trusts only the pinned host key."""

    def run(draft, name, command, user=None, timeout=60):
        located = Lab().locate(draft)[name].ssh
        known_hosts = tmp_path / "known_hosts"
        known_hosts.write_text(f"{located.hostname} {located.host_key}\n")
        options = {
            "UserKnownHostsFile": known_hosts,
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "5",
        }
        return subprocess.run(
            [
                *("ssh", "-F", "none", "-i", located.key),
                *(f"-o{key}={value}" for key, value in options.items()),
                f"{user or located.user}@{located.hostname}",
                command,
            ],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def inside(draft, name, *command):
    """Run a command in a machine without SSH."""
    return container_engine.working().run("exec", Lab().container(draft, name), *command)


def everything_of(draft):
    """All containers, volumes and networks in the engine with the lab's id in their name."""
    engine = container_engine.working()
    containers = engine.run("ps", "--all", "--format={{.Names}}").split()
    networks = [network.name for network in engine.networks()]
    names = (*containers, *engine.volumes(), *networks)
    return [name for name in names if name.startswith(lab_id(draft))]


def test_openssh_reaches_every_machine_by_its_pinned_key_and_finds_the_right_one(full, ssh):
    for host in full.hosts:
        done = ssh(full, host.name, "hostname; id -un")
        assert done.stdout.split() == [host.name, "root"], done.stderr


def test_openssh_refuses_a_machine_that_shows_another_key(full, ssh, tmp_path):
    lab = Lab()
    pinned = lab.locate(full)["m2"].ssh.host_key
    known_hosts = tmp_path / "other"
    address = lab.locate(full)["m1"].ssh.hostname
    known_hosts.write_text(f"{address} {pinned}\n")
    done = subprocess.run(
        ["ssh", "-F", "none", "-oBatchMode=yes", f"-oUserKnownHostsFile={known_hosts}"]
        + ["-oStrictHostKeyChecking=yes", f"root@{address}", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 255
    assert "verification failed" in done.stderr


def test_systemd_finds_nothing_wrong(full, ssh):
    said = ssh(full, "m1", "systemctl is-system-running --wait; systemctl --failed --plain")
    assert said.stdout.splitlines()[0] == "running", said.stdout


def test_machines_have_ids_of_their_own_and_no_names_from_the_image(full):
    ids = {inside(full, host.name, "cat", "/etc/machine-id") for host in full.hosts}
    assert len(ids) == len(full.hosts)
    keys = {host.ssh.host_key for host in Lab().locate(full).values()}
    assert len(keys) == len(full.hosts)


def test_a_machine_is_not_limited_as_a_container_would_be(full):
    pids = "cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max || echo max"
    assert inside(full, "m1", "sh", "-c", f"{{ {pids}; }} 2>&1 | tail -n 1").strip() == "max"
    assert "shared" in inside(full, "m1", "findmnt", "--noheadings", "--output=PROPAGATION", "/")
    disk = inside(full, "m1", "findmnt", "--noheadings", "--output=OPTIONS", "/var/lib/kubelet")
    assert not {"nosuid", "nodev", "noexec", "ro"} & set(disk.strip().split(","))


def test_the_operators_kernel_settings_are_left_alone(full):
    active = inside(full, "m1", "/lib/systemd/systemd-sysctl", "--cat-config")
    settings = [line for line in active.splitlines() if line and line[0] not in "#;"]
    assert settings == []


def test_packages_can_be_installed_from_the_archive(bare):
    inside(bare, "b1", "apt-get", "update", "--quiet")
    inside(bare, "b1", "apt-get", "install", "--yes", "--quiet", "ethtool")
    assert "ethtool version" in inside(bare, "b1", "ethtool", "--version")


def test_machines_reach_each_other_and_know_their_network(full):
    lab = Lab()
    located = lab.locate(full)
    inside(full, "m1", "bash", "-c", f"echo > /dev/tcp/{located['w1'].address}/22")
    assert lab.vip(full) not in {where.address for where in located.values()}
    assert str(located["m1"].address) in inside(full, "m1", "ip", "-4", "address")


def test_full_has_what_the_deploys_need_and_runs_none_of_it(full):
    for program in ("nft", "iptables", "conntrack", "socat", "ethtool", "haproxy", "bird"):
        inside(full, "m1", "sh", "-c", f"command -v {program}")
    running = inside(full, "m1", "systemctl", "list-units", "--state=running", "--plain")
    assert not [unit for unit in ("haproxy", "bird", "keepalived") if unit in running]
    assert inside(full, "m1", "nft", "list", "ruleset") == ""


def test_bare_lets_in_only_a_user_who_becomes_root(bare, ssh):
    assert Lab().locate(bare)["b1"].ssh.sudo
    assert ssh(bare, "b1", "id -un; sudo -n id -un").stdout.split() == ["admin", "root"]
    refused = ssh(bare, "b1", "true", user="root")
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr


def test_bare_has_neither_python_nor_packages_of_the_deploys(bare):
    for program in ("python3", "curl", "haproxy", "nft", "bird", "conntrack"):
        found = inside(bare, "b1", "sh", "-c", f"command -v {program} || echo none")
        assert found.strip() == "none", program


def test_creating_again_changes_nothing(full):
    def started():
        return [inside(full, host.name, "stat", "-c%Y", "/proc/1") for host in full.hosts]

    before, located = started(), Lab().locate(full)
    Lab().create(full, Silent())
    assert started() == before
    assert Lab().locate(full) == located


def test_machines_that_are_off_or_frozen_come_back_with_address_and_identity(full, ssh):
    lab, located = Lab(), Lab().locate(full)
    ids = {host.name: inside(full, host.name, "cat", "/etc/machine-id") for host in full.hosts}
    inside(full, "m1", "touch", "/root/kept", "/var/lib/etcd/kept")
    lab.stop(full, "m1")
    lab.kill(full, "m2")
    lab.freeze(full, "w1")
    assert lab.missing(full) == ("m1", "m2", "w1")
    assert [status.state for status in lab.status(full)] == ["stopped"] * 3
    lab.create(full, Silent())
    assert lab.missing(full) == ()
    assert lab.locate(full) == located
    for name, machine_id in ids.items():
        assert ssh(full, name, "cat /etc/machine-id").stdout == machine_id
    inside(full, "m1", "ls", "/root/kept", "/var/lib/etcd/kept")


def test_a_frozen_machine_does_not_answer_until_it_is_thawed(full, ssh):
    Lab().freeze(full, "w1")
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            ssh(full, "w1", "true", timeout=3)
    finally:
        Lab().thaw(full, "w1")
    assert ssh(full, "w1", "echo up").stdout == "up\n"


def test_lost_keys_are_made_again_and_the_machines_take_them(full, ssh, state):
    before = Lab().locate(full)["m1"].ssh.host_key
    for file in (state / "clusterctl" / "labs" / lab_id(full)).rglob("*ed25519*"):
        file.unlink()
    Lab().create(full, Silent())
    assert Lab().locate(full)["m1"].ssh.host_key != before
    assert ssh(full, "m1", "hostname").stdout == "m1\n"


def test_private_files_are_the_operators_alone(full, state):
    directory = state / "clusterctl" / "labs" / lab_id(full)
    assert directory.stat().st_mode & 0o777 == 0o700
    keys = [file for file in directory.rglob("*_ed25519") if file.is_file()]
    keys += [*directory.rglob("*_key"), *directory.rglob("id_ed25519")]
    assert keys
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}


def test_a_machine_added_to_the_inventory_moves_no_other(full, inventory, ssh):
    before = Lab().locate(full)
    larger = draft_of(inventory, "m0", "m1", "m2", "w1")
    try:
        Lab().create(larger, Silent())
        after = Lab().locate(larger)
        assert {name: after[name] for name in before} == before
        assert ssh(larger, "m0", "hostname").stdout == "m0\n"
    finally:
        engine = container_engine.working()
        engine.run("rm", "--force", "--time=0", Lab().container(larger, "m0"))


def test_machines_of_another_image_are_not_adopted(full, inventory):
    with pytest.raises(MachinesError, match="'full'") as caught:
        Lab().create(draft_of(inventory, "m1", image="bare"), Silent())
    assert "machines down" in caught.value.hint


def test_before_it_is_created_a_lab_can_say_where_it_will_be(tmp_path):
    draft = draft_of(tmp_path, "m1")
    planned = Lab().locate(draft)["m1"].address
    assert Lab().missing(draft) == ("m1",)
    assert everything_of(draft) == []
    try:
        Lab().create(draft, Silent())
        assert Lab().locate(draft)["m1"].address == planned
    finally:
        Lab().destroy(draft, Silent())


def test_destroying_leaves_nothing_of_this_lab_and_all_of_the_others(full, tmp_path, state):
    draft = draft_of(tmp_path, "m1", "m2")
    Lab().create(draft, Silent())
    Lab().freeze(draft, "m1")
    others = everything_of(full)
    Lab().destroy(draft, Silent())
    assert everything_of(draft) == []
    assert not (state / "clusterctl" / "labs" / lab_id(draft)).exists()
    assert everything_of(full) == others
    left = [path for path in Path("/sys/fs/cgroup").rglob("libpod-*") if lab_id(draft) in str(path)]
    assert left == []
    Lab().destroy(draft, Silent())


def test_a_half_made_lab_is_removed_and_can_be_finished(tmp_path):
    draft = draft_of(tmp_path, "m1", "m2")
    lab, engine = Lab(), container_engine.working()
    try:
        lab.create(draft, Silent())
        # The state after an interrupted run: m2 is not running, and only the volumes of m1 exist.
        engine.run("rm", "--force", "--time=0", lab.container(draft, "m1"))
        lab.kill(draft, "m2")
        assert lab.missing(draft) == ("m1", "m2")
        lab.create(draft, Silent())
        assert lab.missing(draft) == ()
        engine.run("rm", "--force", "--time=0", lab.container(draft, "m1"))
    finally:
        lab.destroy(draft, Silent())
    assert everything_of(draft) == []


def test_the_kernels_limit_is_raised_while_there_are_labs(full):
    networks = {n.name: n for n in container_engine.working().networks()}
    before = int(networks[lab_id(full)].labels["clusterctl.inotify"])
    assert inotify.instances() >= 128 + 16 * len(full.hosts)
    assert inotify.instances() >= before


def test_labs_that_come_and_go_do_not_disturb_each_other(tmp_path, monkeypatch):
    # Each process acts as another user, so they share no lock. The commit's hash decides how often
    # each lab comes and goes: a round takes 15 s of computing time.
    chosen = random.Random(f"labs {seed()}").randint(1, 2)  # noqa: S311
    rounds = 3 if seed() == EVERYTHING else chosen
    program = (
        "import sys; from pathlib import Path; from provision.machines.lab import Lab\n"
        "from provision.inventory import Draft, HostEntry; from provision.local.progress import Silent\n"
        "host = HostEntry(name='m1', roles=frozenset({'master'}))\n"
        "draft = Draft(name='labtest', source='lab', inventory=Path(sys.argv[1]), hosts=(host,))\n"
        "for _ in range(int(sys.argv[2])):\n"
        "    Lab().create(draft, Silent()); Lab().destroy(draft, Silent())\n"
    )
    users = []
    for user in ("a", "b", "c"):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / user))
        inventory = str(tmp_path / user / "inventory.py")
        argv = [sys.executable, "-c", program, inventory, str(rounds)]
        users.append(subprocess.Popen(argv, stderr=subprocess.PIPE, text=True))
    errors = [user.communicate(timeout=120)[1] for user in users]
    assert [user.returncode for user in users] == [0, 0, 0], errors


def test_five_machines_answer_within_seconds(tmp_path):
    draft = draft_of(tmp_path, "m1", "m2", "m3", "w1", "w2")
    try:
        begin = time.monotonic()
        Lab().create(draft, Silent())
        # It takes 3 s on an idle machine with 2 cores. The rest is a margin for other load.
        assert time.monotonic() - begin < 30
    finally:
        Lab().destroy(draft, Silent())


def test_a_machine_whose_removal_was_interrupted_is_gone(full, tmp_path):
    engine = container_engine.working()
    if engine.name != "podman":
        pytest.skip("a daemon's removals are not interrupted with who asked for them")
    draft = draft_of(tmp_path, "m1")
    name, label = f"{lab_id(draft)}-m1", f"clusterctl.lab={lab_id(draft)}"
    image = engine.run("container", "inspect", "--format={{.Image}}", Lab().container(full, "m1"))

    def inspected():
        command = ["podman", "container", "inspect", name]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def listed():
        return engine.run("ps", "--all", "--quiet", f"--filter=label={label}").split()

    root = engine.run("info", "--format={{.Store.GraphRoot}}").strip()
    for _ in range(50):
        made = engine.run("create", f"--name={name}", f"--label={label}", image.strip(), "true")
        # The engine removes the directory before it forgets the container.
        directory = Path(root) / "overlay-containers" / made.strip()
        removal = subprocess.Popen([*engine.command, "rm", "--force", name])
        while directory.exists() and removal.poll() is None:
            pass
        removal.kill()
        removal.wait()
        if listed() and not inspected():
            break
        engine.run("rm", "--force", "--ignore", name)
    else:
        pytest.fail("no removal was interrupted half-way")

    assert [status.state for status in Lab().status(draft)] == ["absent"]
    assert listed() == []
