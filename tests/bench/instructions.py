"""Instructions per exchange, with and without metrics and traces, less what the process does by itself: they do not depend on what
else the machine does. Needs valgrind, and a build with `--features traces`.

  instructions.py BINARY SEED

One worker, 200 viewers in turn, 6,000 exchanges, everything cached; valgrind counts the instructions of the portal's process.
"""
import http.client
import os
import pathlib
import subprocess
import sys
import time

import portal

BINARY, SEED = sys.argv[1:3]
ROUNDS = 30
start = subprocess.Popen


def count(name, port, settings):
    """Instructions of one exchange."""
    found = portal.folder / f"callgrind.{name}"

    def counted(command, *rest, **options):
        if command[-1] == "serve":
            command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={found}", "--quiet", *command]
        return start(command, *rest, **options)

    os.environ.update({"BENCH_PORT": str(port), "VALETKEY_WORKERS": "1"})
    os.environ.update(settings)
    portal.subprocess.Popen = counted
    served = portal.Portal(BINARY, SEED, name, None)
    portal.subprocess.Popen = start
    tokens = served.seed(200, 200)
    wire = http.client.HTTPConnection("127.0.0.1", served.ports[0], timeout=120)
    fields = {"Authorization": f"Key {served.key}", "Host": served.public[7:], "Content-Type": "application/x-www-form-urlencoded"}

    def exchange(token):
        wire.request("POST", "/__api__/v1/oauth/integrations/credentials", portal.FORM + token, fields)
        answer = wire.getresponse()
        body = answer.read()
        assert answer.status == 200, body

    def control(option):
        subprocess.run(["callgrind_control", option, str(served.processes[0].pid)], check=True, capture_output=True)

    for token in tokens * 2:
        exchange(token)
    control("-z")
    began = time.monotonic()
    for token in tokens * ROUNDS:
        exchange(token)
    control("-d")
    # What the process does by itself in the same time.
    time.sleep(time.monotonic() - began)
    control("-d")
    time.sleep(1)
    served.stop()

    def total(dump):
        text = pathlib.Path(f"{found}.{dump}").read_text(errors="replace")
        return int(next(line for line in text.splitlines() if line.startswith("totals:")).split()[1])

    for setting in settings:
        del os.environ[setting]
    return (total(1) - total(2)) / (ROUNDS * len(tokens))


# A collector that nobody runs: what is recorded is dropped in the end.
collector = {"VALETKEY_TRACES_ENDPOINT": "http://127.0.0.1:9"}
variants = {
    "neither": {},
    "metrics": {"VALETKEY_METRICS_LISTEN": "127.0.0.1:9188"},
    "traces, none recorded": {**collector, "VALETKEY_TRACES_PERCENT": "0"},
    "traces, all recorded": {**collector, "VALETKEY_TRACES_PERCENT": "100"},
}
print("| | instructions per exchange | more |\n| --- | --- | --- |")
neither = None
for number, (name, settings) in enumerate(variants.items()):
    found = count(f"node{number}", 18900 + 20 * number, settings)
    neither = neither or found
    print(f"| {name} | {found:,.0f} | {100 * (found / neither - 1):+.1f} % |", flush=True)
