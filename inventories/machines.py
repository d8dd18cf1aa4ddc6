"""Your own machines: systemd, an SSH server, and a user who may become root. No more than that.

    clusterctl check inventories/machines.py     # are they fit? touches nothing
    clusterctl up inventories/machines.py

The pyinfra command understands this file too: `pyinfra inventories/machines.py exec -- uptime`.
All fields: docs/inventory.md.
"""

cluster = {
    "name": "machines",
    # Where people find the API: an address of the machines' network that no machine has. It moves
    # between the masters. With a load balancer of your own, instead: {"name": "api.example.org"}
    "api": {"vip": "192.0.2.10"},
    # Nothing else may use these two networks.
    "networks": {"pods": "10.244.0.0/16", "services": "10.96.0.0/16"},
    # "kubernetes": "1.37.1",
    # Machines without a way out: everything in one file, from `clusterctl artifacts bundle`.
    # "artifacts": {"source": "bundle", "bundle": "clusterctl-1.37.1.bundle"},
    # Programs in the pods reach the internet as the machines do; only downloads use the proxy.
    # "proxy": {"https": "http://proxy.example.org:3128", "no_proxy": ["192.0.2.0/24"]},
    # Masters run nothing but the control plane, unless:
    # "masters_schedulable": True,
    # "extra_args": {"kube-apiserver": {"audit-log-maxage": "30"}},
}

# Every group in pyinfra's form: a list of machines, and data that they share. A machine's name is
# its hostname. The host keys are those in ~/.ssh/known_hosts: log in to each machine once, or pin
# the key here with "ssh_host_key".
_ssh = {
    "ssh_user": "admin",
    "ssh_key": "~/.ssh/id_ed25519",
    "_sudo": True,
    # Through a bastion: an ssh_config with ProxyJump.
    # "ssh_config_file": "~/.ssh/cluster_config",
}

# Three, so that any one may die. Without a group `etcd`, each has a member of it.
masters = (
    [
        ("m1", {"ssh_hostname": "192.0.2.11"}),
        ("m2", {"ssh_hostname": "192.0.2.12"}),
        ("m3", {"ssh_hostname": "192.0.2.13"}),
    ],
    _ssh,
)

workers = (
    [
        ("w1", {"ssh_hostname": "192.0.2.21"}),
        # Reached from here by another name and port than from its neighbours:
        ("w2", {"ssh_hostname": "w2.example.org", "ssh_port": 2222, "address": "192.0.2.22"}),
        # For some pods only:
        (
            "w3",
            {
                "ssh_hostname": "192.0.2.23",
                "labels": {"disk": "nvme"},
                "taints": ["dedicated=database:NoSchedule"],
            },
        ),
    ],
    _ssh,
)
