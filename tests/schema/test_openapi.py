"""The HTTP API of a running demo against its own OpenAPI document, by Schemathesis.

The stream of events has no end, so it is left out. The queries for Grafana in docs/api.md are applied
to its answers, too.
"""

import datetime
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import jsonata

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests/deploy"))
from programs import BRIDGE, free_port, get, running, until  # noqa: E402

CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_headers_conformance", "response_schema_conformance", "unsupported_method"]
# Random names and IDs are only answered with 404.
CONFIG = """
[[operations]]
include-name = "GET /devices/{gateway}/{device_id}"
parameters = { "path.gateway" = "demo", "path.device_id" = 600000001 }
"""


def grafana(address):
    """Each column of each query has values of its type."""
    page = (ROOT / "docs/api.md").read_text()
    table = re.search(r"\| panel \|.*?\n\n", page, re.DOTALL).group()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.split("\n")[2:] if line]
    assert len(rows) == 3, rows
    now_ms = int(time.time() * 1000)
    for panel, url, root, columns in rows:
        url = url.strip("`").replace("${__from}", str(now_ms - 3_600_000)).replace("${__to}", str(now_ms))
        select = jsonata.Jsonata(root.strip("`"))
        found = until(f"{panel}: rows", lambda: select.evaluate(json.loads(get(address + url))))
        # One row alone is not in a list.
        found = [found] if isinstance(found, dict) else found
        for selector, kind in re.findall(r"`(\w+)`(?: \((\w+)\))?", columns):
            values = [jsonata.Jsonata(selector).evaluate(row) for row in found]
            values = [value for value in values if value is not None]
            assert values, f"{panel}: {selector} has no value in {found[:2]}"
            if kind == "time":
                values = [datetime.datetime.fromisoformat(value) for value in values]
            numbers = all(isinstance(value, (int, float)) for value in values)
            assert numbers == (kind == "number"), f"{panel}: {selector}: {values[:2]}"


def main():
    api = f"http://127.0.0.1:{free_port()}/api/v1"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        address = api.removeprefix("http://").removesuffix("/api/v1")
        with running(BRIDGE, "demo", "--http", address, log=folder / "demo.log"):
            until("there are events", lambda: '"disconnected"' in get(f"{api}/events"))
            grafana(f"http://{address}")
            (folder / "schemathesis.toml").write_text(CONFIG)
            asked = subprocess.run(
                [pathlib.Path(sys.executable).parent / "schemathesis", "run", f"{api}/openapi.json",
                 "--url", api, "--exclude-path", "/events/stream", "--checks", ",".join(CHECKS),
                 "--max-examples", "100", "--seed", "1", "--no-color"], cwd=folder)
    sys.exit(asked.returncode)


if __name__ == "__main__":
    main()
