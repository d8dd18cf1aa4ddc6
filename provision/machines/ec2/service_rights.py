"""What masters may do so that Services get load balancers: cloud-provider-aws' calls, and no other.

From the calls in its source (pkg/providers/v1, version 1.36.0) that its controller of load balancers
makes. What it has made carries the cluster's tag with `owned`, security groups of ours with `shared`:
it may change or remove nothing else, not the API's load balancer either.
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
    """Statements of a policy, for a cluster of that name."""
    tag = cluster_tag(cluster)
    asked_for, there = f"aws:RequestTag/{tag}", f"aws:ResourceTag/{tag}"
    return (
        allow(_LOOK),
        # Of the security group's VPC one cannot ask for a tag in the request.
        allow(("ec2:CreateSecurityGroup",)),
        allow(
            ("ec2:CreateTags",),
            condition={
                "StringEquals": {"ec2:CreateAction": "CreateSecurityGroup", asked_for: "owned"}
            },
        ),
        allow(_MAKE, condition={"StringEquals": {asked_for: "owned"}}),
        # Else it could make the API's load balancer its own.
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
    """A statement of a policy."""
    allowed = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return {**allowed, "Condition": condition} if condition else allowed
