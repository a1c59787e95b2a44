"""Exchanges with few and with many connections stored, on SQLite and on PostgreSQL; how soon a revoke counts on each node.

  connections.py SECONDS BINARY SEED POSTGRES [MANY]

Viewers: a thousand, each with a session token of their own, in turn. Every exchange checks key, session, access, consent and
connection. SEED is the example `seed`, POSTGRES a server's address (tests/postgres start), MANY 200000 unless said.
"""
import atexit
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

SECONDS, BINARY, SEED, POSTGRES = sys.argv[1:5]
MANY = int(sys.argv[5]) if len(sys.argv) > 5 else 200_000
FEW = 1_000
folder = pathlib.Path(tempfile.mkdtemp())
running = []
atexit.register(lambda: [process.kill() for process in running])
FORM = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token_type=urn%3Aposit%3Aconnect%3Auser-session-token&subject_token="


class Portal:
    """One node, or several on one database, on ports of their own."""

    def __init__(self, name, database, nodes=1):
        self.ports = [18710 + number for number in range(nodes)]
        self.public = f"http://127.0.0.1:{self.ports[0]}"
        self.settings = []
        for number, port in enumerate(self.ports):
            data = folder / f"{name}{number}"
            data.mkdir()
            self.settings.append({**os.environ, "VALETKEY_LISTEN": f"127.0.0.1:{port}", "VALETKEY_PUBLIC_URL": self.public, "VALETKEY_DATA_DIR": str(data),
                                  "VALETKEY_KEYRING_FILE": str(folder / f"{name}0" / "keyring"), "VALETKEY_LOG": "error", "VALETKEY_PRIVATE_HOSTS": "127.0.0.1", **({"VALETKEY_DATABASE_URL": database} if database else {})})
        made = subprocess.run([BINARY, "admin", "create", "ada", "--password-stdin", "--api-key"], input="long enough\n", text=True, env=self.settings[0], check=True, capture_output=True)
        self.key = made.stdout.strip()
        self.processes = [subprocess.Popen([BINARY, "serve"], env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for settings in self.settings]
        running.extend(self.processes)
        for port in self.ports:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/__ping__").read()
                    break
                except OSError:
                    time.sleep(0.02)
        config = {"client_id": "c", "client_secret": "s3cret", "authorization_uri": "https://idp.example.org/a", "token_uri": "https://idp.example.org/t", "scopes": "a"}
        self.integration = self.api("POST", "oauth/integrations", {"name": "x", "template": "custom", "config": config})["guid"]
        self.content = self.api("POST", "content", {"name": "x", "access_type": "logged_in", "upstream_url": "http://127.0.0.1:9"})["guid"]
        self.api("PUT", f"content/{self.content}/oauth/integrations/associations", [{"oauth_integration_guid": self.integration}])

    def api(self, method, path, body=None, port=None):
        headers = {"Authorization": f"Key {self.key}", "Content-Type": "application/json", "Host": self.public[7:]}
        request = urllib.request.Request(f"http://127.0.0.1:{port or self.ports[0]}/__api__/v1/{path}", None if body is None else json.dumps(body).encode(), headers, method=method)
        with urllib.request.urlopen(request) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def seed(self, count, tokens=0):
        out = subprocess.run([SEED, self.integration, self.content, str(count), str(tokens)], env=self.settings[0], check=True, capture_output=True, text=True).stdout
        return out.split()

    def exchange(self, token, port):
        form = urllib.parse.urlencode({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": "urn:posit:connect:user-session-token", "subject_token": token})
        request = urllib.request.Request(f"http://127.0.0.1:{port}/__api__/v1/oauth/integrations/credentials", form.encode(), {"Authorization": f"Key {self.key}", "Host": self.public[7:]})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.read()
            return error.code

    def wrk(self, path, script=None):
        command = ["wrk", "-t", "2", "-c", "32", "-d", f"{SECONDS}s", "--latency", *(["-s", str(script)] if script else []), f"{self.public}{path}"]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "Non-2xx" not in out, out
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
        return rate, *(re.search(rf"{part}%\s+(\S+)", out).group(1) for part in (50, 99))

    def script(self, tokens):
        """One token after the other, over all threads."""
        path = folder / "exchange.lua"
        (folder / "tokens").write_text("\n".join(tokens))
        path.write_text(f"""
local made, turn = nil, math.random(1000)
function request()
  if not made then
    made = {{}}
    local headers = {{["Host"] = "{self.public[7:]}", ["Authorization"] = "Key {self.key}", ["Content-Type"] = "application/x-www-form-urlencoded"}}
    for line in io.lines("{folder}/tokens") do
      made[#made + 1] = wrk.format("POST", nil, headers, "{FORM}" .. line)
    end
  end
  turn = turn % #made + 1
  return made[turn]
end
""")
        return path

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(40)


def database():
    name = f"bench_{uuid.uuid4().hex}"
    subprocess.run(["psql", POSTGRES, "-qc", f"CREATE DATABASE {name}"], check=True)
    return POSTGRES.rsplit("/", 1)[0] + f"/{name}"


commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
print(f"Commit {commit}, {os.cpu_count()} cores, {platform.machine()}, wrk with 32 connections for {SECONDS} s each, everything on one machine; {FEW:,} viewers in turn, each with a token of their own.\n")
print("| database | connections stored | exchanges/s | p50 | p99 | of the empty handler | of the rate with few |")
print("| --- | --- | --- | --- | --- | --- | --- |")
for name, place in (("SQLite", None), ("PostgreSQL", database())):
    portal = Portal(name, place)
    script = portal.script(portal.seed(FEW, FEW))
    few = None
    for stored in (FEW, MANY):
        if stored > FEW:
            portal.seed(stored - FEW)
        portal.wrk("/__api__/v1/oauth/integrations/credentials", script)  # warms up
        empty, *_ = portal.wrk("/__ping__")
        rate, p50, p99 = portal.wrk("/__api__/v1/oauth/integrations/credentials", script)
        few = few or rate
        print(f"| {name} | {stored:,} | {rate:,.0f} | {p50} | {p99} | {rate / empty:.2f} | {rate / few:.2f} |", flush=True)
    portal.stop()

portal = Portal("nodes", database(), nodes=3)
tokens = portal.seed(60, 60)
guids = [session["guid"] for session in portal.api("GET", "oauth/sessions?all=true")]
print("\nTime from a revoke's answer to the first refused exchange, PostgreSQL, three nodes, 30 revokes each, exchanges without a pause:\n")
print("| asked at | median ms | longest ms |\n| --- | --- | --- |")
people = {token: guid for token, guid in zip(tokens, guids)}
for where, port in (("the same node", portal.ports[0]), ("another node", portal.ports[1])):
    took = []
    for token in tokens[:30] if where == "the same node" else tokens[30:]:
        assert portal.exchange(token, port) == 200
        portal.api("DELETE", f"oauth/sessions/{people[token]}")
        began = time.monotonic()
        while portal.exchange(token, port) == 200:
            pass
        took.append(1000 * (time.monotonic() - began))
    print(f"| {where} | {statistics.median(took):.0f} | {max(took):.0f} |", flush=True)
portal.stop()
