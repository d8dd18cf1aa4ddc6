"""The masters' rights to make load balancers for Services: the calls of cloud-provider-aws only.

Source: the calls of its load balancer controller (pkg/providers/v1, version 1.36.0). Things that
the controller makes have the cluster's tag with the value `owned`; clusterctl's security groups
have it with `shared`. The controller may not change or remove any other thing, nor the API's load
balancer.
"""

from __future__ import annotations

from typing import Any

from provision.machines.ec2.names import cluster_tag

_LOOK = (
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "elasticloadbalancing:DescribeListeners",
    "elasticloadbalancing:DescribeLoadBalancerAttributes",
    "elasticloadbalancing:DescribeLoadBalancerPolicies",
    "elasticloadbalancing:DescribeLoadBalancers",
    "elasticloadbalancing:DescribeTargetGroupAttributes",
    "elasticloadbalancing:DescribeTargetGroups",
    "elasticloadbalancing:DescribeTargetHealth",
)
_MAKE = (
    "elasticloadbalancing:CreateLoadBalancer",
    "elasticloadbalancing:CreateTargetGroup",
)
_TAGGING = ("CreateListener", "CreateLoadBalancer", "CreateTargetGroup")
_CHANGE = (
    "ec2:DeleteSecurityGroup",
    "elasticloadbalancing:AddTags",
    "elasticloadbalancing:ApplySecurityGroupsToLoadBalancer",
    "elasticloadbalancing:AttachLoadBalancerToSubnets",
    "elasticloadbalancing:ConfigureHealthCheck",
    "elasticloadbalancing:CreateListener",
    "elasticloadbalancing:CreateLoadBalancerListeners",
    "elasticloadbalancing:CreateLoadBalancerPolicy",
    "elasticloadbalancing:DeleteListener",
    "elasticloadbalancing:DeleteLoadBalancer",
    "elasticloadbalancing:DeleteLoadBalancerListeners",
    "elasticloadbalancing:DeleteTargetGroup",
    "elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
    "elasticloadbalancing:DeregisterTargets",
    "elasticloadbalancing:DetachLoadBalancerFromSubnets",
    "elasticloadbalancing:ModifyListener",
    "elasticloadbalancing:ModifyLoadBalancerAttributes",
    "elasticloadbalancing:ModifyTargetGroup",
    "elasticloadbalancing:ModifyTargetGroupAttributes",
    "elasticloadbalancing:RegisterInstancesWithLoadBalancer",
    "elasticloadbalancing:RegisterTargets",
    "elasticloadbalancing:SetLoadBalancerPoliciesForBackendServer",
    "elasticloadbalancing:SetLoadBalancerPoliciesOfListener",
)


def statements(cluster: str) -> tuple[dict[str, Any], ...]:
    """Give the statements of a policy, for a cluster of that name."""
    tag = cluster_tag(cluster)
    asked_for, there = f"aws:RequestTag/{tag}", f"aws:ResourceTag/{tag}"
    return (
        allow(_LOOK),
        # No condition on a tag: the right is also checked for the VPC, which has no request tag.
        allow(("ec2:CreateSecurityGroup",)),
        allow(
            ("ec2:CreateTags",),
            condition={
                "StringEquals": {"ec2:CreateAction": "CreateSecurityGroup", asked_for: "owned"}
            },
        ),
        allow(_MAKE, condition={"StringEquals": {asked_for: "owned"}}),
        # Without this condition the controller could tag the API's load balancer as `owned`.
        allow(
            ("elasticloadbalancing:AddTags",),
            condition={"StringEquals": {"elasticloadbalancing:CreateAction": list(_TAGGING)}},
        ),
        allow(_CHANGE, condition={"StringEquals": {there: "owned"}}),
        allow(
            ("ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"),
            condition={"StringEquals": {there: ["owned", "shared"]}},
        ),
    )


def allow(
    actions: tuple[str, ...],
    resource: str = "*",
    condition: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Give a statement of a policy."""
    allowed = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return {**allowed, "Condition": condition} if condition else allowed
