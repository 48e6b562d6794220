"""The bookshop: the tenant whose rows the clients of `/rest/v1` read and write."""

import json
import os
import pathlib
import urllib.request

URL = os.environ["TENANT_URL"]
TOKEN = os.environ["TENANT_TOKEN"]
REST = f"{URL}/rest/v1"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}

# Whose the token is: the tenant's back end, or a person, beside whose rows there are hidden ones.
IS_SERVICE = os.environ["TENANT_ROLE"] == "service"

_SCRIPTS = ["seed.sql"] if IS_SERVICE else ["seed.sql", "hidden.sql"]
_SEED = "".join((pathlib.Path(__file__).parent.parent / "bookshop" / name).read_text() for name in _SCRIPTS)


def reset():
    """Every table as the seed has it."""
    body = json.dumps({"script": _SEED}).encode()
    headers = {"Authorization": f"Bearer {os.environ['TENANT_SERVICE_TOKEN']}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{URL}/v1/sql", body, headers)
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
