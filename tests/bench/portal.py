"""Portals with seeded connections, for benchmarks: one node on SQLite, or several on one PostgreSQL database."""
import atexit
import json
import os
import pathlib
import re
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

folder = pathlib.Path(tempfile.mkdtemp())
running = []
atexit.register(lambda: [process.kill() for process in running])
FORM = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token_type=urn%3Aposit%3Aconnect%3Auser-session-token&subject_token="


class Portal:
    """One node, or several on one database, on ports of their own. `tls`: over TLS, HTTP/2 included."""

    def __init__(self, binary, seed, name, database, nodes=1, tls=False):
        self.seeder = seed
        self.ports = [int(os.environ.get("BENCH_PORT", 18710)) + number for number in range(nodes)]
        self.scheme, self.tls, own = "https" if tls else "http", None, {}
        self.host = f"127.0.0.1:{self.ports[0]}"
        self.public = f"{self.scheme}://{self.host}"
        if tls:
            certificate, key = folder / "certificate.pem", folder / "key.pem"
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate], check=True, capture_output=True)
            self.tls = ssl.create_default_context(cafile=certificate)
            own = {"VALETKEY_TLS_CERTIFICATE_FILE": str(certificate), "VALETKEY_TLS_KEY_FILE": str(key), "VALETKEY_CONTENT_URL": f"https://localhost:{self.ports[0]}"}
        self.settings = []
        for number, port in enumerate(self.ports):
            data = folder / f"{name}{number}"
            data.mkdir()
            self.settings.append({**os.environ, "VALETKEY_LISTEN": f"127.0.0.1:{port}", "VALETKEY_PUBLIC_URL": self.public, "VALETKEY_DATA_DIR": str(data),
                                  "VALETKEY_KEYRING_FILE": str(folder / f"{name}0" / "keyring"), "VALETKEY_LOG": "error", "VALETKEY_PRIVATE_HOSTS": "127.0.0.1", **own, **({"VALETKEY_DATABASE_URL": database} if database else {})})
        made = subprocess.run([binary, "admin", "create", "ada", "--password-stdin", "--api-key"], input="long enough\n", text=True, env=self.settings[0], check=True, capture_output=True)
        self.key = made.stdout.strip()
        self.processes = [subprocess.Popen([binary, "serve"], env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for settings in self.settings]
        running.extend(self.processes)
        for port in self.ports:
            while True:
                try:
                    urllib.request.urlopen(f"{self.scheme}://127.0.0.1:{port}/__ping__", context=self.tls).read()
                    break
                except OSError:
                    time.sleep(0.02)
        config = {"client_id": "c", "client_secret": "s3cret", "authorization_uri": "https://idp.example.org/a", "token_uri": "https://idp.example.org/t", "scopes": "a"}
        self.integration = self.api("POST", "oauth/integrations", {"name": "x", "template": "custom", "config": config})["guid"]
        self.content = self.api("POST", "content", {"name": "x", "access_type": "logged_in", "upstream_url": "http://127.0.0.1:9"})["guid"]
        self.api("PUT", f"content/{self.content}/oauth/integrations/associations", [{"oauth_integration_guid": self.integration}])

    def api(self, method, path, body=None, port=None):
        headers = {"Authorization": f"Key {self.key}", "Content-Type": "application/json", "Host": self.host}
        request = urllib.request.Request(f"{self.scheme}://127.0.0.1:{port or self.ports[0]}/__api__/v1/{path}", None if body is None else json.dumps(body).encode(), headers, method=method)
        with urllib.request.urlopen(request, context=self.tls) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def seed(self, count, tokens=0):
        out = subprocess.run([self.seeder, self.integration, self.content, str(count), str(tokens)], env=self.settings[0], check=True, capture_output=True, text=True).stdout
        return out.split()

    def exchange(self, token, port):
        form = urllib.parse.urlencode({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": "urn:posit:connect:user-session-token", "subject_token": token})
        request = urllib.request.Request(f"{self.scheme}://127.0.0.1:{port}/__api__/v1/oauth/integrations/credentials", form.encode(), {"Authorization": f"Key {self.key}", "Host": self.host})
        try:
            with urllib.request.urlopen(request, context=self.tls) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.read()
            return error.code

    def wrk(self, path, script=None, seconds=5):
        command = ["wrk", "-t", "2", "-c", "32", "-d", f"{seconds}s", "--latency", *(["-s", str(script)] if script else []), f"{self.public}{path}"]
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
    local headers = {{["Host"] = "{self.host}", ["Authorization"] = "Key {self.key}", ["Content-Type"] = "application/x-www-form-urlencoded"}}
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


def database(server):
    name = f"bench_{uuid.uuid4().hex}"
    subprocess.run(["psql", server, "-qc", f"CREATE DATABASE {name}"], check=True)
    return server.rsplit("/", 1)[0] + f"/{name}"
