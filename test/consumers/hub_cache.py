"""Reads, or fills, the cache of the Hub with Python's client; prints what it found as JSON.

    python hub_cache.py read|fill REPOSITORY

HF_ENDPOINT and HF_HUB_CACHE say where.
"""

import json
import os
import sys

import huggingface_hub
from huggingface_hub import scan_cache_dir, snapshot_download

what, repository = sys.argv[1:]
if what == "fill":
    folder = snapshot_download(repository, allow_patterns=["*.json", "*.safetensors"])
else:
    folder = snapshot_download(repository, local_files_only=True)
cache = scan_cache_dir()
[entry] = cache.repos
[revision] = entry.revisions
print(
    json.dumps(
        {
            "version": huggingface_hub.__version__,
            "folder": folder,
            "warnings": [str(warning) for warning in cache.warnings],
            "repository": entry.repo_id,
            "commit": revision.commit_hash,
            "refs": sorted(revision.refs),
            "files": {
                os.path.relpath(file.file_path, folder).replace(os.sep, "/"): file.size_on_disk
                for file in sorted(revision.files, key=lambda file: str(file.file_path))
            },
        }
    )
)
