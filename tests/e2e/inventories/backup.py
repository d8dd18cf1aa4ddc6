"""One machine, whose snapshots go where the test says."""

import json
import os

cluster = {
    "name": "test-backup",
    "machines": "lab",
    "addons": {"metrics_server": False, "local_path": False},
    "backup": json.loads(os.environ.get("TEST_BACKUP", "{}")),
}
masters = ["n1"]
workers = ["n1"]
