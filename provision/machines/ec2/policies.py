"""The machines' rights in the account, and the policy of the bucket."""

from __future__ import annotations

import json
from typing import Any

from provision.machines.ec2 import service_rights
from provision.machines.ec2.names import CLUSTER, MASTERS, names_of
from provision.machines.ec2.service_rights import allow
from provision.model.backup_place import BACKUPS
from provision.model.cluster import Settings

SSM = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"


def assume() -> str:
    """Give the trust policy of a role: only EC2 may assume it."""
    return _document(
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    )


def of_machines(given: Settings, account: str, side: str) -> str:
    """Give the policy of masters, or of workers.

    Masters maintain the pods' routes, and put a token for workers that join into the bucket. The
    bucket also has the program that these workers run; only operators may change it. Masters write
    snapshots to the bucket and remove old ones. The bucket is versioned, so an operator can restore
    an object that a master removed.
    """
    names = names_of(given, account)
    bucket = f"arn:aws:s3:::{names.bucket}"
    ours = {"StringEquals": {f"aws:ResourceTag/{CLUSTER}": given.name}}
    if side != MASTERS:
        return _document(allow(("s3:GetObject",), f"{bucket}/join/*"))
    return _document(
        allow(("ec2:DescribeInstances", "ec2:DescribeRouteTables")),
        allow(
            (
                "ec2:CreateRoute",
                "ec2:ReplaceRoute",
                "ec2:DeleteRoute",
                "ec2:ModifyInstanceAttribute",
            ),
            condition=ours,
        ),
        *service_rights.statements(given.name),
        allow(("s3:PutObject", "s3:DeleteObject"), f"{bucket}/join/token"),
        allow(("s3:GetObject", "s3:PutObject", "s3:DeleteObject"), f"{bucket}/{BACKUPS}/*"),
        allow(("s3:ListBucket",), bucket, {"StringLike": {"s3:prefix": f"{BACKUPS}/*"}}),
    )


def of_bucket(bucket: str) -> str:
    """Give the bucket's policy: it denies every request without TLS."""
    return _document(
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    )


def _document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
