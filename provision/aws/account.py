"""boto3's clients for one region, and AWS' errors in words that say what to do.

botocore itself retries calls that AWS throttles. For some seconds, parts of AWS may not know an
object that was just made; `patiently` repeats a call that fails for that reason, for up to PATIENCE
seconds.
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

from provision.model.commands import shell
from provision.model.errors import MachinesError

SERVICES = ("ec2", "elb", "elbv2", "iam", "autoscaling", "s3", "sts")
ATTEMPTS = 8  # with botocore's pauses of up to 20 s: outlasts throttling of a minute and more
PATIENCE = 60.0  # seconds; EC2 takes about ten to know a new instance profile
POLL = 2  # seconds between two attempts of a waiter
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
# Error code -> pattern of its text, for errors about an object that AWS does not know yet.
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
    "RequestExpired": f"set this computer's clock: {shell('timedatectl', 'set-ntp', 'true')}",
    "BucketAlreadyExists": "give another `bucket`: names are the whole world's",
}
_CREDENTIALS = {
    "AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException",
    "InvalidAccessKeyId",
}  # fmt: skip
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
LOGIN = f"{shell('aws', 'configure')}, {shell('aws', 'sso', 'login')}, or set AWS_PROFILE: clusterctl uses what the aws command uses"


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
            # Several threads may use a client, but must not make one at the same time.
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
        """Make a call that lists, page by page: the `items` of all pages.

        Raises:
            botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: see `in_words`.
        """
        pages = self._clients[service].get_paginator(action).paginate(**request)
        return [item for page in pages for item in page.get(items, ())]

    def wait(self, waiter: str, request: Mapping[str, object], timeout: float = 300) -> None:
        """Wait with one of boto3's waiters for EC2.

        Args:
            timeout: seconds.

        Raises:
            botocore.exceptions.WaiterError: it was not in time, or can no longer come true.
        """
        config = {"Delay": POLL, "MaxAttempts": int(timeout / POLL)}
        self._clients["ec2"].get_waiter(waiter).wait(**request, WaiterConfig=config)


def code_of(error: Exception) -> str:
    """AWS' error code, `VpcLimitExceeded`; for other errors, the name of the exception's type."""
    if isinstance(error, botocore.exceptions.ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return type(error).__name__


def patiently(call: Callable[[], Any], patience: float = PATIENCE) -> Any:  # noqa: ANN401  AWS'
    """Call, and again while AWS does not know an object that was just made.

    Args:
        patience: seconds until the error is raised.
    """
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
    """Say what an AWS error means and what to do.

    Args:
        what: the object that the call was about, `instance m1`.
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
    """`create_vpc` -> `CreateVpc`; a name that AWS uses itself stays as it is."""
    if action[:1].isupper():
        return action
    return "".join(word.capitalize() for word in action.split("_"))
