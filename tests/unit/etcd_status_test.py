"""What etcd's members say, and what is made of it."""

import json

from provision.commands.etcd.status import as_json, judge, parse
from tests.world import cluster

IDS = {"m1": 12750060741800750095, "m2": 4337914247887195571, "m3": 6144081379996751999}
MEMBERS = {
    "members": [
        {"ID": number, "name": name, "peerURLs": [f"https://{name}:2380"]}
        for name, number in IDS.items()
    ]
}


def said(name, *, leader="m1", members=MEMBERS, alone="", cluster_id=1, **status):
    """As etcd 3.6.16 prints it."""
    data = {
        "header": {
            "cluster_id": cluster_id,
            "member_id": IDS[name],
            "revision": 666,
            "raft_term": 2,
        },
        "version": "3.6.16",
        "dbSize": 1110016,
        "leader": IDS[leader] if leader else 0,
        "raftIndex": 834,
        "dbSizeInUse": 1000000,
        "dbSizeQuota": 67108864,
    } | status
    lines = [f"@@ status\n{json.dumps([{'Endpoint': 'https://127.0.0.1:2379', 'Status': data}])}"]
    lines += [f"@@ alone\n{alone}"] if alone else []
    lines += [f"@@ members\n{json.dumps(members)}"]
    return parse(name, "\n".join(lines))


def healthy():
    return [said(name) for name in IDS]


def test_a_healthy_cluster_has_one_leader_and_no_problems():
    members = healthy()

    assert judge(cluster(), members) == []
    assert as_json(members, [])["leader"] == "m1"
    assert members[0].id == "b0f150b123afec0f"
    assert members[1].listed[0].name == "m1"


def test_a_full_member_says_what_to_type():
    full = said("m2", errors=[f"memberID:{IDS['m2']} alarm:NOSPACE "])

    (finding,) = judge(cluster(), [said("m1"), full, said("m3")])

    assert finding.where == "m2"
    assert "NOSPACE" in finding.what
    assert "clusterctl etcd defrag" in finding.hint
    assert finding.fatal


def test_corrupt_data_are_another_thing_than_no_space():
    (finding,) = judge(
        cluster(), [said("m1"), said("m2"), said("m3", errors=["memberID:1 alarm:CORRUPT "])]
    )

    assert "CORRUPT" in finding.what
    assert "restore" in finding.hint


def test_without_a_quorum_every_member_is_named_and_recover_is_offered():
    alone = said("m3", leader="", alone="Error: context deadline exceeded")
    down = [parse(name, "error inactive: connection refused") for name in ("m1", "m2")]

    findings = judge(cluster(), [*down, alone])

    assert [f.where for f in findings] == ["m1", "m2", "m3", "demo"]
    assert "clusterctl recover" in findings[-1].hint
    assert not as_json([*down, alone], findings)["quorum"]
    assert alone.answers
    assert not down[0].answers


def test_a_machine_that_cannot_be_reached_is_a_finding_not_a_failure():
    lost = parse("m2", "", "m2 did not answer within 10 s")

    findings = judge(cluster(), [said("m1"), lost, said("m3")])

    assert [f.what for f in findings] == ["m2 did not answer within 10 s"]


def test_members_are_compared_with_the_inventory():
    stranger = {"ID": 7, "name": "m9", "peerURLs": [], "isLearner": True}
    members = {"members": [*MEMBERS["members"][:2], stranger]}

    findings = judge(cluster(), [said(name, members=members) for name in IDS])

    assert [(f.where, f.fatal) for f in findings] == [("m9", True), ("m3", True), ("m9", False)]


def test_members_of_two_clusters_are_never_called_healthy():
    (finding,) = judge(cluster(), [said("m1"), said("m2"), said("m3", cluster_id=2)])

    assert "m1, m2 and m3" in finding.what
    assert finding.fatal


def test_status_warns_before_the_quota_is_reached_and_when_half_the_file_is_empty():
    nearly = said("m1", dbSize=60 << 20, dbSizeInUse=59 << 20)
    holes = said("m2", dbSize=300 << 20, dbSizeInUse=100 << 20, dbSizeQuota=8 << 30)

    findings = judge(cluster(), [nearly, holes, said("m3")])

    assert [f.where for f in findings] == ["m1", "m2"]
    assert not any(f.fatal for f in findings)
    assert all("etcd defrag" in f.hint for f in findings)


def test_an_unreadable_answer_is_reported():
    assert "cannot be read" in parse("m1", "@@ status\n{").error
    assert parse("m1", "").error == "no answer"
