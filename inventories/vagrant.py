"""Three masters and two workers, made by Vagrant on this computer: any master may die.

VirtualBox or libvirt where one of them is installed, else containers.
"""

cluster = {
    "name": "vagrant",
    "machines": "vagrant",
    "vagrant": {"memory": 2048, "cpus": 2},
    "api": {"vip": "auto"},
}

masters = ["m1", "m2", "m3"]
workers = ["w1", "w2"]
