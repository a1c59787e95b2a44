"""schemathesis sends the API what its OpenAPI document permits and what it forbids, as an administrator and as a viewer: no
answer is a 5xx. OPENAPI_EXAMPLES says how many examples each operation gets."""
import copy
import json
import os
import re
import subprocess
import sys

import pytest
import requests

from conftest import BINARY, Demo, Viewer

EXAMPLES = os.environ.get("OPENAPI_EXAMPLES", "8")


@pytest.fixture
def demo():
    """A portal of its own: what is sent here is in nobody else's way."""
    process = subprocess.Popen([BINARY, "demo", "--json", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    yield Demo(json.loads(process.stdout.readline()))
    process.terminate()
    assert process.wait(60) == 0


def known_ids(demo):
    """Real ids for the parameters of paths, by the beginning of the path."""
    key = demo.key("ada")

    def first(path, field="guid"):
        found = requests.get(demo.api(path), headers=key).json()
        found = found["results"] if isinstance(found, dict) else found
        return [one[field] for one in found[:3]]

    people, content = first("v1/users"), first("v1/content")
    groups = first("v1/groups") or [requests.post(demo.api("v1/groups"), headers=key, json={"name": "fuzzed"}).json()["guid"]]
    return {"/v1/users/": people, "/v1/groups/": groups, "/v1/content/": content, "/v1/oauth/integrations/": first("v1/oauth/integrations"), "/v1/oauth/sessions/": first("v1/oauth/sessions?all=true"), "/v1/oauth/templates/": ["azure", "custom"]}


@pytest.mark.parametrize("who", ["ada", "vera"])
def test_nothing_that_a_program_sends_is_a_failure_of_the_portal(demo, tmp_path, who):
    item = requests.get(demo.api("v1/content"), headers=demo.key("ada")).json()[0]
    Viewer(demo, "vera").open(item["content_url"])
    document = requests.get(demo.api("openapi.json")).json()
    ids = known_ids(demo)
    for path, methods in document["paths"].items():
        for begin, real in ids.items():
            if path.startswith(begin) and real:
                for operation in methods.values():
                    for parameter in operation["parameters"]:
                        if parameter["in"] == "path" and parameter["name"] in ("guid", "key"):
                            # Half of them are there, half are not.
                            other = "00000000-0000-4000-8000-000000000000"
                            parameter["schema"] = {"type": "string", "enum": [*real, other, "x"]}
    # Whoever locks or deletes people, or their keys, soon has none to ask with.
    for path, method in (("/v1/users/{guid}/lock", "post"), ("/v1/users/{guid}/keys/{id}", "delete"), ("/v1/users/{guid}", "put")):
        for parameter in document["paths"][path][method]["parameters"]:
            parameter["schema"] = copy.deepcopy({"type": "string", "enum": ["00000000-0000-4000-8000-000000000000", "x"]})
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document))
    command = [
        os.path.join(os.path.dirname(sys.executable), "schemathesis"), "run", str(file), "--url", demo.api("").rstrip("/"),
        "--header", f"Authorization:{demo.key(who)['Authorization']}", "--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing",
        "--max-examples", EXAMPLES, "--seed", "7", "--no-color", "--continue-on-failure", "--suppress-health-check", "all", "--request-timeout", "60", "--warnings", "off",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=900)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said[-6000:]
    cases = re.search(r"([\d,]+) generated", said)
    print(f"{who}: {cases.group(0) if cases else said[-300:]}, no 5xx")
