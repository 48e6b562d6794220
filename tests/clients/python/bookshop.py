"""The bookshop: the tenant whose rows the clients of `/rest/v1` read and write."""

import json
import os
import pathlib
import urllib.request

URL = os.environ["TENANT_URL"]
TOKEN = os.environ["TENANT_TOKEN"]
REST = f"{URL}/rest/v1"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}

_SEED = (pathlib.Path(__file__).parent.parent / "bookshop" / "seed.sql").read_text()


def reset():
    """Every table as the seed has it."""
    body = json.dumps({"script": _SEED}).encode()
    request = urllib.request.Request(f"{URL}/v1/sql", body, {**HEADERS, "Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
