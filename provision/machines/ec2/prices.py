"""The approximate cost: on-demand list prices, Linux, in US dollars.

The prices were copied by hand on DATE from https://aws.amazon.com/pricing. AWS seldom changes them.
Not counted: traffic, requests to S3, backups, and the load balancer's charge for traffic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provision.machines import Planned
from provision.machines.ec2.keys import Kind
from provision.machines.ec2.model import Step

DATE = "2026-06"
HOURS = 730  # a month, as AWS counts
HOME = "us-east-1"  # its prices are used for regions without known prices


@dataclass(frozen=True)
class Prices:
    """Prices of one region, per hour; `volume`: per GiB and month."""

    instances: Mapping[str, float]
    volume: float
    load_balancer: float
    public_address: float = 0.005


PRICES: Mapping[str, Prices] = {
    "us-east-1": Prices(
        {
            "t3.small": 0.0208, "t3.medium": 0.0416, "t3.large": 0.0832, "t3.xlarge": 0.1664,
            "t3a.medium": 0.0376, "t3a.large": 0.0752,
            "t4g.small": 0.0168, "t4g.medium": 0.0336, "t4g.large": 0.0672,
            "m5.large": 0.096, "m5.xlarge": 0.192, "m6i.large": 0.096, "m6i.xlarge": 0.192,
            "m7i.large": 0.1008, "m7i.xlarge": 0.2016,
            "m6g.large": 0.077, "m6g.xlarge": 0.154, "m7g.large": 0.0816, "m7g.xlarge": 0.1632,
            "c5.large": 0.085, "c6i.large": 0.085, "c6i.xlarge": 0.17, "c7g.large": 0.0725,
            "r5.large": 0.126, "r6i.large": 0.126, "r6g.large": 0.1008,
        },
        volume=0.08,
        load_balancer=0.0225,
    ),
    "eu-central-1": Prices(
        {
            "t3.small": 0.024, "t3.medium": 0.048, "t3.large": 0.096, "t3.xlarge": 0.192,
            "t4g.small": 0.0192, "t4g.medium": 0.0384, "t4g.large": 0.0768,
            "m5.large": 0.115, "m5.xlarge": 0.23, "m6i.large": 0.115, "m6i.xlarge": 0.23,
            "c5.large": 0.097, "c6i.large": 0.097, "r5.large": 0.152, "r6i.large": 0.152,
        },
        volume=0.0952,
        load_balancer=0.027,
    ),
}  # fmt: skip


def planned(steps: Sequence[Step], region: str) -> tuple[Planned, ...]:
    """List the things that the steps make, with the monthly cost of each."""
    prices = PRICES.get(region, PRICES[HOME])
    templates = [
        s.request["LaunchTemplateData"] for s in steps if s.key.kind is Kind.LAUNCH_TEMPLATE
    ]
    worker = _machine(templates[0], prices) if templates else None
    return tuple(Planned(str(s.key), s.detail, _monthly(s, prices, worker)) for s in steps)


def basis(region: str) -> str:
    """Name the source of the prices, and the costs that they leave out."""
    where = region if region in PRICES else f"{HOME}, because the prices of {region} are not known"
    return (
        f"list prices of {DATE} for {where}, on demand; without traffic, requests and backups; "
        "spot instances are cheaper"
    )


def _monthly(step: Step, prices: Prices, worker: float | None) -> float | None:
    """Give US dollars a month; None: the thing costs nothing, or its price is not known."""
    request = step.request
    if step.action == "run_instances":
        return _machine(request, prices)
    if step.action == "create_volume":
        return float(request["Size"] * prices.volume)
    if step.action == "create_load_balancer":
        zones = len(request["Subnets"])
        return (prices.load_balancer + zones * prices.public_address) * HOURS
    if step.action == "create_auto_scaling_group" and worker is not None:
        return float(request["DesiredCapacity"] * worker)
    return None


def _machine(request: Mapping[str, Any], prices: Prices) -> float | None:
    hourly = prices.instances.get(request["InstanceType"])
    if hourly is None:
        return None
    disks = sum(disk["Ebs"]["VolumeSize"] for disk in request["BlockDeviceMappings"])
    return float((hourly + prices.public_address) * HOURS + disks * prices.volume)
