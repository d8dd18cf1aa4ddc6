"""Files for a machine that is not running yet, as a tar archive."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Mapping


def archive(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """Pack path -> (content, mode) as a tar archive; root owns all files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(content), mode, int(time.time())
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
