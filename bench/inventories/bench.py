"""The bench's own lab. BENCH_WORKERS: the number of workers, instead of two."""

import os

cluster = {"name": "bench", "machines": "lab", "api": {"vip": "auto"}}
masters = ["m1", "m2", "m3"]
workers = [f"w{n + 1}" for n in range(int(os.environ.get("BENCH_WORKERS", "2")))]
