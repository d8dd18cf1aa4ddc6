"""boto3's clients for one region, and AWS' errors in words that say what to do.

Throttling is met by botocore's own retries. What has just been made may not be known everywhere
in AWS for some seconds; a call that stumbles over that is tried again for up to PATIENCE seconds.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import boto3
import botocore.exceptions
from botocore.config import Config

from provision.model.errors import MachinesError

SERVICES = ("ec2", "elb", "elbv2", "iam", "autoscaling", "s3", "sts")
ATTEMPTS = 8  # with botocore's pauses up to 20 s each: throttling for a minute and more is met
PATIENCE = 60.0  # seconds; an instance profile takes about ten to be known to EC2
POLL = 2  # seconds between two questions whether something has come about
PERMISSION = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "403"})

_LIMITS = {
    "VpcLimitExceeded": "VPCs per Region",
    "InternetGatewayLimitExceeded": "Internet gateways per Region",
    "SubnetLimitExceeded": "Subnets per VPC",
    "RouteTableLimitExceeded": "Route tables per VPC",
    "SecurityGroupLimitExceeded": "VPC security groups per Region",
    "VcpuLimitExceeded": "Running On-Demand instances (vCPUs)",
    "InstanceLimitExceeded": "Running On-Demand instances",
    "MaxSpotInstanceCountExceeded": "Spot instance requests (vCPUs)",
    "VolumeLimitExceeded": "Storage for gp3 volumes",
    "LimitExceeded": "of this service (IAM roles, Auto Scaling groups)",
    "LimitExceededException": "of this service (IAM roles, Auto Scaling groups)",
    "TooManyLoadBalancers": "Network Load Balancers per Region",
    "TooManyTargetGroups": "Target Groups per Region",
    "TooManyBuckets": "General purpose buckets",
}
# Code -> what its text says, where something is not known yet.
_YOUNG = {
    "InvalidParameterValue": "Invalid IAM Instance Profile",
    "ValidationError": "Invalid I(AM Instance |amInstance)Profile|launch template.* does not exist",
    "InvalidTarget": "not in a running state",
    "NoSuchEntity": "",
    "IncorrectState": "",
    "IncorrectInstanceState": "",
    "OperationAborted": "",
}
_HINTS = {
    "InsufficientInstanceCapacity": "AWS has no such machine free in that zone now: try again "
    "later, or give another `master_type` or `worker_type`, or other `zones`",
    "SpotMaxPriceTooLow": "leave `spot` out",
    "InvalidIPAddress.InUse": "another machine has that address: give a `network` of the VPC that "
    "nothing else uses",
    "InvalidSubnet.Conflict": "give a `network` that no other subnet of the VPC overlaps",
    "IdempotentParameterMismatch": "an earlier run has asked for it otherwise: wait a minute, then "
    "the same command again finds that one, or makes another if it has ended",
    "OptInRequired": "the account has not subscribed to this AMI or region: open it in the "
    "AWS console once",
    "PendingVerification": "AWS is still verifying the account: wait for its e-mail",
    "RequestExpired": "set this computer's clock: timedatectl set-ntp true",
    "BucketAlreadyExists": "give another `bucket`: names are the whole world's",
}
_CREDENTIALS = {
    "AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException",
    "InvalidAccessKeyId",
}  # fmt: skip
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
LOGIN = "aws configure, aws sso login, or AWS_PROFILE; clusterctl takes what the aws command takes"


class Account:
    """One region of the account that the operator's credentials are for."""

    def __init__(
        self, region: str, endpoint: str = "", services: Collection[str] = SERVICES
    ) -> None:
        self.region = region
        attempts = int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS))
        config = Config(
            region_name=region,
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=16,
            user_agent_extra="clusterctl",
        )
        try:
            session = boto3.session.Session(region_name=region)
            own = {"config": config, "endpoint_url": endpoint or None}
            # Making one is not safe in several threads, using one is.
            self._clients = {name: session.client(name, **own) for name in services}  # type: ignore[call-overload]
        except botocore.exceptions.BotoCoreError as error:
            raise MachinesError(f"AWS cannot be used: {error}", hint=LOGIN) from None

    def call(self, service: str, action: str, **request: object) -> Any:  # noqa: ANN401  AWS'
        """Make one call.

        Raises:
            botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: see `in_words`.
        """
        return getattr(self._clients[service], action)(**request)

    def pages(self, service: str, action: str, items: str, **request: object) -> list[Any]:
        """Make a call that lists, page by page."""
        pages = self._clients[service].get_paginator(action).paginate(**request)
        return [item for page in pages for item in page.get(items, ())]

    def wait(self, waiter: str, request: Mapping[str, object], timeout: float = 300) -> None:
        """Wait in one of boto3's own ways, on EC2."""
        config = {"Delay": POLL, "MaxAttempts": int(timeout / POLL)}
        self._clients["ec2"].get_waiter(waiter).wait(**request, WaiterConfig=config)


def code_of(error: Exception) -> str:
    """AWS' word for what went wrong, `VpcLimitExceeded`; else the exception's own."""
    if isinstance(error, botocore.exceptions.ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return type(error).__name__


def patiently(call: Callable[[], Any], patience: float = PATIENCE) -> Any:  # noqa: ANN401  AWS'
    """Call again while what was just made is not known everywhere."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return call()
        except botocore.exceptions.ClientError as error:
            if not _is_young(error) or time.monotonic() > deadline:
                raise
            time.sleep(1)


def _is_young(error: botocore.exceptions.ClientError) -> bool:
    code = code_of(error)
    text = _YOUNG.get(code, "(?!)")
    return code.endswith(".NotFound") or re.search(text, str(error)) is not None


def in_words(error: Exception, what: str, action: str) -> MachinesError:
    """Say what an AWS error means and what to ask for.

    Args:
        what: the thing that it was about, `instance m1`.
        action: boto3's method.
    """
    api = api_name(action)
    code = code_of(error)
    if isinstance(error, botocore.exceptions.NoCredentialsError):
        return MachinesError("there are no AWS credentials", hint=LOGIN)
    if isinstance(error, botocore.exceptions.ClientError):
        text = error.response.get("Error", {}).get("Message", "")
        message = f"{what}: {api}: {code}: {text}"
    else:
        message = f"{what}: {api}: {error}"
    if code in PERMISSION:
        hint = f"ask for the right to call {api}; docs/ec2.md has the whole policy"
        return MachinesError(f"{what}: no right to call {api} ({code})", hint=hint)
    if code in _EXPIRED:
        return MachinesError("the AWS credentials have expired", hint=LOGIN)
    if code in _CREDENTIALS:
        return MachinesError("AWS does not know these credentials", hint=LOGIN)
    if code in _LIMITS:
        hint = (
            f"ask AWS for a higher quota, {_LIMITS[code]!r}, in the console's Service Quotas; "
            "or remove what is not needed"
        )
        return MachinesError(message, hint=hint)
    again = "the same command again goes on from here"
    return MachinesError(message, hint=_HINTS.get(code, again))


def api_name(action: str) -> str:
    """`create_vpc` -> `CreateVpc`; AWS' own names stay."""
    if action[:1].isupper():
        return action
    return "".join(word.capitalize() for word in action.split("_"))
