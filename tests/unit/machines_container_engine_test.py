"""Which engine is used, and what it is told."""

import json
from ipaddress import IPv4Network

import pytest

from provision.machines import container_engine
from provision.machines.container_engine import (
    CAP_SYS_RESOURCE,
    Container,
    Network,
    Operator,
    engine_for,
    follow,
    has_capability,
    is_hybrid,
    is_unified,
    parse_containers,
    parse_networks,
    refusal_of,
    run,
)
from provision.model.errors import MachinesError

ROOT = Operator(
    root=True,
    sys_resource=True,
    unified=True,
    hybrid=False,
    has_runc=True,
    hard_limits={"nofile": 20000},
)
PODMAN = {"Client": {"Version": "4.3.1"}}
DOCKER = {"ServerVersion": "27.1", "OperatingSystem": "Debian", "SecurityOptions": ["name=seccomp"]}


def replaced(operator, **changes):
    return Operator(**{**operator.__dict__, **changes})


def test_podman_on_cgroup_v2_keeps_its_systemd_mode_and_its_runtime():
    engine = engine_for("podman", ROOT)
    assert engine.command == ("podman",)
    assert "--systemd=false" not in engine.machine_flags


def test_podman_on_cgroup_v1_is_kept_from_mounting_the_cgroups_twice():
    engine = engine_for("podman", replaced(ROOT, unified=False))
    assert engine.command == ("podman",)
    assert "--systemd=false" in engine.machine_flags


def test_podman_takes_runc_on_hybrid_cgroups():
    hybrid = replaced(ROOT, unified=False, hybrid=True)
    assert engine_for("podman", hybrid).command == ("podman", "--runtime=runc")


def test_limits_are_set_only_where_the_capability_to_raise_them_lacks():
    confined = replaced(ROOT, sys_resource=False)
    limit = "--ulimit=nofile=20000:20000"
    assert limit in engine_for("podman", confined).machine_flags
    assert limit not in engine_for("podman", ROOT).machine_flags
    assert limit not in engine_for("docker", confined).machine_flags


def test_docker_gets_no_flag_that_it_does_not_know():
    v1 = replaced(ROOT, unified=False, hybrid=True, sys_resource=False)
    engine = engine_for("docker", v1)
    assert engine.command == ("docker",)
    assert not [flag for flag in engine.machine_flags if flag.startswith("--systemd")]
    assert "--env=container=docker" in engine.machine_flags
    assert engine.volume_options == ""


@pytest.mark.parametrize(
    ("name", "info", "operator", "why"),
    [
        ("podman", PODMAN, replaced(ROOT, root=False), "rootless"),
        ("podman", {**PODMAN, "Server": {"Version": "4.3.1"}}, ROOT, "another machine"),
        ("podman", PODMAN, replaced(ROOT, hybrid=True, has_runc=False), "runc"),
        ("docker", {"ServerErrors": ["Cannot connect to the Docker daemon"]}, ROOT, "connect"),
        ("docker", {}, ROOT, "no daemon"),
        ("docker", {**DOCKER, "OperatingSystem": "Docker Desktop"}, ROOT, "Desktop"),
        ("docker", {**DOCKER, "SecurityOptions": ["name=rootless"]}, ROOT, "rootless"),
    ],
)
def test_an_engine_whose_network_cannot_be_used_is_refused_with_the_reason(
    name, info, operator, why
):
    assert why in refusal_of(name, info, operator)


@pytest.mark.parametrize(("name", "info"), [("podman", PODMAN), ("docker", DOCKER)])
def test_a_usual_engine_is_not_refused(name, info):
    assert refusal_of(name, info, ROOT) == ""


def test_a_client_without_a_daemon_is_not_an_engine(tmp_path, monkeypatch):
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    container_engine.working.cache_clear()
    with pytest.raises(MachinesError, match="podman: not installed.*Cannot connect") as caught:
        container_engine.working()
    assert "apt-get install podman runc" in caught.value.hint


def test_only_the_chosen_engine_is_tried(tmp_path, monkeypatch):
    for name in ("podman", "docker"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho {name} does not work >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    container_engine.working.cache_clear()
    monkeypatch.setenv("CLUSTERCTL_ENGINE", "docker")
    with pytest.raises(MachinesError) as caught:
        container_engine.working()
    assert "docker does not work" in caught.value.message
    assert "podman" not in caught.value.message
    monkeypatch.setenv("CLUSTERCTL_ENGINE", "lxc")
    with pytest.raises(MachinesError, match="CLUSTERCTL_ENGINE is 'lxc'"):
        container_engine.working()


def test_capabilities_are_read_from_the_effective_set():
    status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t000001fffeffffff\n"
    assert not has_capability(status, CAP_SYS_RESOURCE)
    assert has_capability(status, 21)
    assert not has_capability("", CAP_SYS_RESOURCE)


def test_cgroups_are_hybrid_when_both_versions_are_mounted():
    v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
    v2 = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
    assert is_unified("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
    assert not is_unified(v1 + v2)
    assert is_hybrid(v1 + v2)
    assert not is_hybrid(v1)
    assert not is_hybrid(v2)


def test_networks_of_both_engines_are_understood():
    both = [{"subnet": "10.88.0.0/16"}, {"subnet": "fd00::/64"}]
    of_podman = [{"name": "a", "subnets": both, "labels": {"k": "v"}}]
    of_docker = [
        {"Name": "b", "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]}, "Labels": {"k": "v"}},
        {"Name": "host", "IPAM": {"Config": None}},
    ]
    assert parse_networks(json.dumps(of_podman)) == (
        Network("a", (IPv4Network("10.88.0.0/16"),), {"k": "v"}),
    )
    assert parse_networks(json.dumps(of_docker)) == (
        Network("b", (IPv4Network("172.17.0.0/16"),), {"k": "v"}),
        Network("host", (), {}),
    )


def test_containers_of_both_engines_are_understood():
    labels = {"clusterctl.machine": "m1", "clusterctl.address": "10.77.0.11"}
    expected = (Container("m1", "running", labels), Container("x", "exited", {}))
    of_podman = [
        {"Names": ["m1"], "State": "running", "Labels": labels},
        {"Names": ["x"], "State": "exited", "Labels": None},
    ]
    joined = ",".join(f"{key}={value}" for key, value in labels.items())
    of_docker = [
        {"Names": "m1", "State": "running", "Labels": joined},
        {"Names": "x", "State": "exited", "Labels": ""},
    ]
    assert parse_containers(json.dumps(of_podman, indent=2)) == expected
    assert parse_containers("".join(f"{json.dumps(item)}\n" for item in of_docker)) == expected
    assert parse_containers("[]") == parse_containers("") == ()


def test_a_failing_command_shows_its_output_without_its_arguments(tmp_path):
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    engine.chmod(0o755)
    with pytest.raises(MachinesError) as caught:
        run((str(engine), "create", "--name=m1", "image"))
    assert caught.value.message == f"{engine} create: broken"


def test_a_command_that_does_not_end_is_ended():
    with pytest.raises(MachinesError, match="did not end within"):
        run(("sleep", "20"), timeout=0.1)


def test_long_commands_hand_on_each_line_and_fail_with_the_last_ones():
    seen = []
    follow(("sh", "-c", "echo one; echo; printf '\\033[91mtwo\\033[0m\\n' >&2"), seen.append)
    assert seen == ["one", "two"]
    with pytest.raises(MachinesError, match="disk full"):
        follow(("sh", "-c", "echo disk full; exit 1"), seen.append)


def test_a_long_command_is_stopped_when_its_reader_is_interrupted(tmp_path):
    def interrupt(line):
        raise KeyboardInterrupt

    after = tmp_path / "after"
    with pytest.raises(KeyboardInterrupt):
        follow(("sh", "-c", f"echo go; sleep 1; touch {after}"), interrupt)
    assert not after.exists()
