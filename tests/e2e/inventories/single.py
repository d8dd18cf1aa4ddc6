"""One machine. Tests add settings, such as the places for its snapshots: see single/conftest.py."""

import json
import os

cluster = {
    "name": "test-single",
    "machines": "lab",
    "addons": {"metrics_server": False, "local_path": False},
} | json.loads(os.environ.get("TEST_SINGLE", "{}"))
masters = ["n1"]
workers = ["n1"]
