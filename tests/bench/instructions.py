"""Instructions per exchange, with and without metrics: the same whatever else the machine does. Needs valgrind.

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


def count(name, port, metrics):
    """Instructions of one exchange."""
    found = portal.folder / f"callgrind.{name}"

    def counted(command, *rest, **options):
        if command[-1] == "serve":
            command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={found}", "--quiet", *command]
        return start(command, *rest, **options)

    os.environ.update({"BENCH_PORT": str(port), "VALETKEY_WORKERS": "1", **metrics})
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
    for token in tokens * ROUNDS:
        exchange(token)
    control("-d")
    time.sleep(1)
    served.stop()
    text = pathlib.Path(f"{found}.1").read_text(errors="replace")
    totals = next(line for line in text.splitlines() if line.startswith("totals:"))
    return int(totals.split()[1]) / (ROUNDS * len(tokens))


without = count("without", 18900, {})
beside = count("with", 18920, {"VALETKEY_METRICS_LISTEN": "127.0.0.1:9188"})
print(f"Instructions per exchange: {without:,.0f} without metrics, {beside:,.0f} with them ({100 * (beside / without - 1):+.1f} %)")
