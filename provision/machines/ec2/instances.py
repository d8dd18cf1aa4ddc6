"""The steps that make machines: instances with their volumes, and the Auto Scaling group. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

from provision.inventory import Draft
from provision.inventory.draft import HostEntry
from provision.machines.ec2.keys import (
    GROUP,
    GROUP_SIZE,
    GROUPED,
    KEY_PAIR,
    LAUNCH_TEMPLATE,
    TEMPLATE_VERSION,
    Key,
    Kind,
)
from provision.machines.ec2.model import HostKey, Ref, Seen, Step, Text, World
from provision.machines.ec2.names import (
    HOST_KEY,
    MASTERS,
    WORKERS,
    names_of,
    shared,
    tagged,
    tags,
)
from provision.machines.ec2.placing import side_of
from provision.machines.ec2.user_data import VOLUME, cloud_config, joining
from provision.model.cluster import Role

DEVICE = "/dev/sdf"


def machine_steps(
    draft: Draft,
    world: World,
    seen: Seen,
    host: HostEntry,
    zone: str,
    address: IPv4Address,
    key: HostKey | None,
) -> Iterator[Step]:
    """Give the steps that make a machine and, if it has an etcd member, a volume that outlives it.

    Args:
        key: SSH host key of an instance that does not exist yet.
    """
    instance, volume = Key(Kind.INSTANCE, host.name), Key(Kind.VOLUME, host.name)
    there, has_etcd = seen.instances.get(host.name), Role.ETCD in host.roles
    started, checked = Key(Kind.START, host.name), Key(Kind.SOURCE_CHECK, host.name)
    if has_etcd:
        yield _volume(draft, volume, zone, key)
    yield _instance(draft, world, seen, host, zone, address, key)
    if there and there.state in {"stopping", "stopped"}:
        request, stopped = {"InstanceIds": [there.id]}, ("instance_stopped", there.id)
        yield Step(started, "ec2", "start_instances", request, once=stopped)
    yield Step(
        checked,
        "ec2",
        "modify_instance_attribute",
        {"InstanceId": Ref(instance), "SourceDestCheck": {"Value": False}},
        after=(started,),
        once=("instance_running", instance),
        sets="off",
        detail="off, for the pods' own addresses",
    )
    if has_etcd:
        yield Step(
            Key(Kind.ATTACHMENT, host.name),
            "ec2",
            "attach_volume",
            {"VolumeId": Ref(volume), "InstanceId": Ref(instance), "Device": DEVICE},
            after=(checked,),
            once=("volume_available", volume),
        )


def _volume(draft: Draft, volume: Key, zone: str, key: HostKey | None) -> Step:
    size = draft.ec2.etcd_disk
    return Step(
        volume,
        "ec2",
        "create_volume",
        {
            "AvailabilityZone": zone,
            "Size": size,
            "VolumeType": "gp3",
            "Encrypted": True,
            "ClientToken": _token(draft, volume, key.public if key else ""),
            **tagged(draft, volume),
        },
        "VolumeId",
        detail=f"{size} GiB gp3 in {zone}, for etcd",
    )


def _instance(
    draft: Draft,
    world: World,
    seen: Seen,
    host: HostEntry,
    zone: str,
    address: IPv4Address,
    key: HostKey | None,
) -> Step:
    ec2, side, instance = draft.ec2, side_of(host), Key(Kind.INSTANCE, host.name)
    volume = Key(Kind.VOLUME, host.name) if Role.ETCD in host.roles else None
    kind = ec2.master_type if side == MASTERS else ec2.worker_type
    public = key.public if key else ""
    machine_tags = tags(draft, instance, **{HOST_KEY: public}, **shared(draft))
    root_tags = tags(draft, Key(Kind.ROOT_VOLUME, host.name))
    spot = ec2.spot and side == WORKERS
    leaving = seen.leaving.get(host.name)
    return Step(
        instance,
        "ec2",
        "run_instances",
        {
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": _token(draft, instance, public),
            "ImageId": world.images[side],
            "InstanceType": kind,
            "KeyName": ec2.key_pair or Ref(KEY_PAIR),
            "IamInstanceProfile": {"Name": Ref(Key(Kind.PROFILE, side))},
            "MetadataOptions": METADATA,
            "NetworkInterfaces": [
                {
                    **_interface(side),
                    "SubnetId": Ref(Key(Kind.SUBNET, zone)),
                    "PrivateIpAddress": str(address),
                }
            ],
            "BlockDeviceMappings": [_root(world.roots[side], ec2.disk)],
            "TagSpecifications": [
                {"ResourceType": "instance", "Tags": machine_tags},
                {"ResourceType": "network-interface", "Tags": machine_tags},
                {"ResourceType": "volume", "Tags": root_tags},
            ],
            "UserData": _user_data(host.name, key or HostKey("", ""), volume),
            **({"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}),
        },
        "Instances.0.InstanceId",
        once=("instance_terminated", leaving.id) if leaving else ("", ""),
        after=(
            Key(Kind.ROLE_IN_PROFILE, side),
            Key(Kind.SUBNET_AT_TABLE, zone),
            *((volume,) if volume else ()),
        ),
        detail=f"{kind} in {zone}{', spot' if spot else ''}",
    )


def _interface(side: str) -> dict[str, Any]:
    return {
        "DeviceIndex": 0,
        "DeleteOnTermination": True,
        "AssociatePublicIpAddress": True,
        "Groups": [Ref(Key(Kind.SECURITY_GROUP, side))],
    }


METADATA = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"}


def _user_data(name: str, key: HostKey, volume: Key | None) -> Text:
    text = cloud_config(name, host_private=key.private, host_public=key.public, volume=bool(volume))
    before, _, after = text.partition(VOLUME)
    return Text((before, Ref(volume), after) if volume else (text,))


def _root(device: str, size: int) -> dict[str, Any]:
    disk = {"VolumeSize": size, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    return {"DeviceName": device, "Ebs": disk}


def _token(draft: Draft, key: Key, salt: str) -> str:
    """Make a ClientToken, 64 characters: the same for the same thing, also after a crash."""
    text = json.dumps([draft.name, draft.ec2.owner, str(key), salt])
    return hashlib.sha256(text.encode()).hexdigest()


def group_steps(draft: Draft, world: World, seen: Seen) -> Iterator[Step]:
    """Give the steps that make a launch template, and the Auto Scaling group that uses it."""
    ec2, names = draft.ec2, names_of(draft, world.account)
    name, data = names.group, _template(draft, world, names.bucket)
    digest = hashlib.sha256(repr(data).encode()).hexdigest()[:16]
    body = {"LaunchTemplateName": name, "VersionDescription": digest, "LaunchTemplateData": data}
    if LAUNCH_TEMPLATE in seen.ids:
        action = "create_launch_template_version"
        yield Step(TEMPLATE_VERSION, "ec2", action, body, sets=digest)
    else:
        yield Step(
            LAUNCH_TEMPLATE,
            "ec2",
            "create_launch_template",
            {**body, **tagged(draft, LAUNCH_TEMPLATE)},
            "LaunchTemplate.LaunchTemplateId",
        )
    if GROUP in seen.ids:
        yield size_step(draft, seen)
        return
    inside = [Ref(Key(Kind.GROUP_SUBNET, zone)) for zone in ec2.zones]
    zones = tuple(part for ref in inside for part in (",", ref))[1:]
    yield Step(
        GROUP,
        "autoscaling",
        "create_auto_scaling_group",
        {
            "AutoScalingGroupName": name,
            **size_of(ec2.group),
            "LaunchTemplate": {"LaunchTemplateId": Ref(LAUNCH_TEMPLATE), "Version": "$Latest"},
            "VPCZoneIdentifier": Text(zones),
            "Tags": [
                {**tag, "PropagateAtLaunch": False, "ResourceId": name, "ResourceType": RESOURCE}
                for tag in tags(draft, GROUP)
            ],
        },
        after=(
            Key(Kind.ROLE_IN_PROFILE, WORKERS),
            *(Key(Kind.GROUP_SUBNET_AT_TABLE, zone) for zone in ec2.zones),
        ),
        detail=f"{ec2.group} x {ec2.worker_type}{', spot' if ec2.spot else ''}",
    )


def _template(draft: Draft, world: World, bucket: str) -> dict[str, Any]:
    """Give the data of the launch template: EC2's description of one worker."""
    ec2 = draft.ec2
    data: dict[str, Any] = {
        "ImageId": world.images[WORKERS],
        "InstanceType": ec2.worker_type,
        "KeyName": ec2.key_pair or Ref(KEY_PAIR),
        "IamInstanceProfile": {"Name": Ref(Key(Kind.PROFILE, WORKERS))},
        "MetadataOptions": METADATA,
        "NetworkInterfaces": [_interface(WORKERS)],
        "BlockDeviceMappings": [_root(world.roots[WORKERS], ec2.disk)],
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": tags(draft, GROUPED, **further)}
            for kind, further in (
                ("instance", shared(draft)),
                ("volume", {}),
                ("network-interface", {}),
            )
        ],
    }
    if ec2.spot:
        data["InstanceMarketOptions"] = {"MarketType": "spot"}
    # boto3 does not encode the user data of launch templates.
    data["UserData"] = base64.b64encode(joining(draft, bucket).encode()).decode()
    return data


def size_step(draft: Draft, seen: Seen) -> Step:
    """Give the step that sets the group's size to the inventory's."""
    size = draft.ec2.group
    return Step(
        GROUP_SIZE,
        "autoscaling",
        "update_auto_scaling_group",
        {"AutoScalingGroupName": names_of(draft).group, **size_of(size)},
        sets=str(size),
        detail=f"{seen.settings.get(GROUP_SIZE, '?')} -> {size} workers, as in the inventory",
    )


def size_of(workers: int) -> dict[str, int]:
    """Give the arguments that set a group's size."""
    return {"MinSize": workers, "MaxSize": workers, "DesiredCapacity": workers}


RESOURCE = "auto-scaling-group"
