"""The HTTP API of a running demo against its own OpenAPI document, by Schemathesis.

The stream of events has no end, so it is left out.
"""

import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests/deploy"))
from programs import BRIDGE, free_port, get, running, until  # noqa: E402

CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_headers_conformance", "response_schema_conformance", "unsupported_method"]


def main():
    api = f"http://127.0.0.1:{free_port()}/api/v1"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        address = api.removeprefix("http://").removesuffix("/api/v1")
        with running(BRIDGE, "demo", "--http", address, log=folder / "demo.log"):
            until("there are events", lambda: '"disconnected"' in get(f"{api}/events"))
            asked = subprocess.run(
                [pathlib.Path(sys.executable).parent / "schemathesis", "run", f"{api}/openapi.json",
                 "--url", api, "--exclude-path", "/events/stream", "--checks", ",".join(CHECKS),
                 "--max-examples", "100", "--seed", "1", "--no-color"], cwd=folder)
    sys.exit(asked.returncode)


if __name__ == "__main__":
    main()
