"""What a machine is told at its first boot: cloud-init's `#cloud-config`, 16 KB at most.

The SSH host key is ours, so that the first connection can be verified. Who can read user data,
the private half in it included: whoever may call `ec2:DescribeInstanceAttribute` in the account,
and processes on the machine that reach its metadata service; pods on the pod network do not, the
hop limit is 1. docs/ec2.md has what else one may do.
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
    """Write it.

    Args:
        hostname: the machine's name, and its Node's.
        host_private: SSH host key, ed25519, as OpenSSH writes it.
        host_public: `ssh-ed25519 AAAA...`.
        volume: whether it is to wait for an EBS volume for etcd's data; its id goes where
            VOLUME stands.
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
        # Attached after the instance runs; systemd makes a file system if there is none, and
        # mounts when the device is there.
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
    """Tell a worker of the Auto Scaling group how to join, by itself."""
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
            # Its name is its instance's: it sets it itself.
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
    # JSON is YAML, and nothing in it needs another way of quoting.
    return f"#cloud-config\n{json.dumps(config, indent=1)}\n"
