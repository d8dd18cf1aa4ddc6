"""One machine; tests add settings, such as where its snapshots go: see single/conftest.py."""

import json
import os

cluster = {
    "name": "test-single",
    "machines": "lab",
    "addons": {"metrics_server": False, "local_path": False},
} | json.loads(os.environ.get("TEST_SINGLE", "{}"))
masters = ["n1"]
workers = ["n1"]
