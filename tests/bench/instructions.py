"""Instructions per exchange and per proxied request, less what the process does by itself: they do not depend on what else the
machine does. Needs valgrind and nginx.

  instructions.py BINARY SEED                     without and with metrics and traces; a build with `--features traces`
  instructions.py BINARY SEED OTHER OTHER_SEED    two builds

One worker, 200 viewers in turn, 6,000 of each, everything cached; valgrind counts the instructions of the portal's process. With
INSTRUCTIONS_KEEP=FOLDER what it found is kept there, for callgrind_annotate.
"""
import http.client
import os
import pathlib
import secrets
import shutil
import sqlite3
import subprocess
import sys
import time

import parts
import portal
from town import claims_of, content_cookie, content_sessions

ROUNDS, VIEWERS = 30, 200
KEEP = os.environ.pop("INSTRUCTIONS_KEEP", None)
start = subprocess.Popen


class Counted:
    """A portal under valgrind, with viewers who have a session token and a session at the content."""

    def __init__(self, binary, seed, name, port, settings):
        self.found = portal.folder / f"callgrind.{name}"
        self.dumps = 0

        def counted(command, *rest, **options):
            if command[-1] == "serve":
                command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={self.found}", "--quiet", *command]
            return start(command, *rest, **options)

        os.environ.update({"BENCH_PORT": str(port), "VALETKEY_WORKERS": "1", **settings})
        portal.subprocess.Popen = counted
        self.served = portal.Portal(binary, seed, name, None)
        portal.subprocess.Popen = start
        for setting in settings:
            del os.environ[setting]
        self.served.api("PATCH", f"content/{self.served.content}", {"upstream_url": parts.APP})
        self.tokens = self.served.seed(VIEWERS, VIEWERS)
        self.cookies = [secrets.token_urlsafe(32) for _ in self.tokens]
        with sqlite3.connect(pathlib.Path(self.served.settings[0]["VALETKEY_DATA_DIR"]) / "valetkey.db", timeout=20) as file:
            file.execute(content_sessions(zip(map(claims_of, self.tokens), self.cookies)))
        self.wire = http.client.HTTPConnection("127.0.0.1", self.served.ports[0], timeout=120)

    def ask(self, *request):
        self.wire.request(*request)
        answer = self.wire.getresponse()
        body = answer.read()
        assert answer.status == 200, (answer.status, answer.headers["Location"], body)

    def exchange(self, number):
        fields = {"Authorization": f"Key {self.served.key}", "Host": self.served.host, "Content-Type": "application/x-www-form-urlencoded"}
        self.ask("POST", "/__api__/v1/oauth/integrations/credentials", portal.FORM + self.tokens[number], fields)

    def proxied_request(self, number):
        # As Chromium sends it.
        fields = {"Host": f"localhost:{self.served.ports[0]}", "Cookie": f"{content_cookie(self.served.content)}={self.cookies[number]}",
                  "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
                  "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", "Accept-Language": "en-GB,en;q=0.9",
                  "Accept-Encoding": "gzip, deflate, br, zstd", "Upgrade-Insecure-Requests": "1", "Cache-Control": "max-age=0", "Sec-Fetch-Site": "none",
                  "Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1", "Sec-Fetch-Dest": "document", "Sec-Ch-Ua": '"Chromium";v="156"', "Sec-Ch-Ua-Mobile": "?0", "Sec-Ch-Ua-Platform": '"Linux"'}
        self.ask("GET", f"/content/{self.served.content}/", None, fields)

    def control(self, option):
        subprocess.run(["callgrind_control", option, str(self.served.processes[0].pid)], check=True, capture_output=True)

    def dump(self):
        """What was counted since the last one."""
        self.control("-d")
        self.dumps += 1
        file = pathlib.Path(f"{self.found}.{self.dumps}")
        while not (file.exists() and "totals:" in (text := file.read_text(errors="replace"))):
            time.sleep(0.1)
        return int(next(line for line in text.splitlines() if line.startswith("totals:")).split()[1])

    def count(self, act):
        """Instructions of one act."""
        for number in list(range(VIEWERS)) * 2:
            act(number)
        self.control("-z")
        began = time.monotonic()
        for number in list(range(VIEWERS)) * ROUNDS:
            act(number)
        busy = self.dump()
        if KEEP:
            shutil.copy(f"{self.found}.{self.dumps}", pathlib.Path(KEEP) / f"{self.found.name}.{act.__name__}")
        # What the process does by itself in the same time.
        time.sleep(time.monotonic() - began)
        return (busy - self.dump()) / (ROUNDS * VIEWERS)


BINARY, SEED = sys.argv[1:3]
if len(sys.argv) > 3:
    variants = {"before": (BINARY, SEED, {}), "after": (*sys.argv[3:5], {})}
else:
    # A collector that nobody runs: what is recorded is dropped in the end.
    collector = {"VALETKEY_TRACES_ENDPOINT": "http://127.0.0.1:9"}
    variants = {name: (BINARY, SEED, settings) for name, settings in {
        "neither": {},
        "metrics": {"VALETKEY_METRICS_LISTEN": "127.0.0.1:9188"},
        "traces, none recorded": {**collector, "VALETKEY_TRACES_PERCENT": "0"},
        "traces, all recorded": {**collector, "VALETKEY_TRACES_PERCENT": "100"},
    }.items()}
print("| | instructions per exchange | more | per proxied request | more |\n| --- | --- | --- | --- | --- |")
first = None
with parts.upstream():
    for number, (name, (binary, seed, settings)) in enumerate(variants.items()):
        counted = Counted(binary, seed, f"node{number}", 18900 + 20 * number, settings)
        found = [counted.count(act) for act in (counted.exchange, counted.proxied_request)]
        counted.served.stop()
        first = first or found
        print("| " + " | ".join([name, *(f"{value:,.0f} | {100 * (value / base - 1):+.1f} %" for value, base in zip(found, first))]) + " |", flush=True)
