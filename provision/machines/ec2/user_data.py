"""The configuration for a machine's first boot: cloud-init's `#cloud-config`, 16 KB at most.

clusterctl makes the SSH host key, so that it can verify the first connection. The user data contain
the private half of the key. Every principal of the account with `ec2:DescribeInstanceAttribute` can
read them, and every process on the machine that reaches its metadata service. Pods on the pod
network do not reach it, because the hop limit is 1. docs/ec2.md has further protection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from provision.desired.components.group import bucket_url
from provision.desired.render import render
from provision.model import paths
from provision.model.cluster import Settings

VOLUME = "@VOLUME@"
JOIN = "clusterctl-join"
JOINED = f"{paths.STATE}/joined"


def cloud_config(
    hostname: str, *, host_private: str, host_public: str, volume: bool = False
) -> str:
    """Give the user data of a machine of the inventory.

    Args:
        hostname: the name of the machine and of its Node.
        host_private: SSH host key, ed25519, as OpenSSH writes it.
        host_public: `ssh-ed25519 AAAA...`.
        volume: whether the machine waits for an EBS volume for etcd's data. The text then has
            VOLUME, which must be replaced by the volume's id.
    """
    config: dict[str, object] = {
        "hostname": hostname,
        "fqdn": hostname,
        "preserve_hostname": False,
        "manage_etc_hosts": True,
        "ssh_deletekeys": True,
        "ssh_genkeytypes": [],
        "ssh_keys": {"ed25519_private": host_private, "ed25519_public": host_public},
    }
    if volume:
        # The volume is attached after the instance runs. systemd makes a file system if the volume
        # has none, and mounts it when the device appears.
        device = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_$(echo {VOLUME} | tr -d -)"
        options = "defaults,noatime,nofail,x-systemd.makefs,x-systemd.device-timeout=10min"
        line = f"{device} {paths.ETCD_DATA} ext4 {options} 0 2"
        config["bootcmd"] = [
            ["mkdir", "-p", paths.ETCD_DATA],
            [
                "sh",
                "-c",
                f'grep -q " {paths.ETCD_DATA} " /etc/fstab || echo "{line}" >> /etc/fstab',
            ],
        ]
        config["runcmd"] = [
            ["systemctl", "daemon-reload"],
            ["systemctl", "start", "--no-block", "var-lib-etcd.mount"],
        ]
    return _text(config)


def joining(given: Settings, bucket: str) -> str:
    """Give the user data of a worker of the Auto Scaling group, so that it joins by itself."""
    script, unit = f"{paths.SBIN}/{JOIN}", f"{JOIN}.service"
    values = {"cluster": given.name, "state": paths.STATE, "joined": JOINED, "script": script}
    program = render(
        f"join/{JOIN}.j2",
        region=given.ec2.region,
        s3=bucket_url(given.ec2, bucket),
        **values,
    )
    files = (
        (script, program, "0755"),
        (f"{paths.UNITS}/{unit}", render(f"join/{unit}.j2", **values), "0644"),
    )
    return _text(
        {
            # The worker sets its own name: the name of its instance.
            "preserve_hostname": True,
            "write_files": [
                {"path": path, "permissions": mode, "content": content.decode()}
                for path, content, mode in files
            ],
            "runcmd": [
                ["systemctl", "daemon-reload"],
                ["systemctl", "enable", "--now", "--no-block", unit],
            ],
        }
    )


def _text(config: Mapping[str, object]) -> str:
    # JSON is valid YAML, and this text needs no other quoting.
    return f"#cloud-config\n{json.dumps(config, indent=1)}\n"
