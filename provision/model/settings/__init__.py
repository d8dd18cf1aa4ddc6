"""The settings of a cluster by subject: the sections of the inventory's dict `cluster`."""
