"""Attacks by publishers: from inside a deployed app, and by what they upload. Each of them must fail.

Needs uv as a program (not a script) on PATH or in VALETKEY_RUN_UV. An attack marked `open_finding` still succeeds;
the mark is removed together with the fault, since an unexpected success fails the test.
"""
import gzip
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tarfile
import threading
import time

import pytest
import requests
from conftest import BINARY, Demo

# Executes what a request brings, and answers with what it prints.
APP = """
import contextlib, io, traceback
def app(environ, start):
    code, out = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode(), io.StringIO()
    with contextlib.redirect_stdout(out):
        try: exec(code, {})
        except BaseException: traceback.print_exc(file=out)
    start("200 OK", [("Content-Type", "text/plain")])
    return [out.getvalue().encode()]
"""
BACKEND = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def manifest(mode="python-api", entry="app", manager="none", package_file="requirements.txt"):
    return json.dumps({"version": 1, "metadata": {"appmode": mode, "entrypoint": entry}, "files": {},
                       "python": {"package_manager": {"name": manager, "package_file": package_file}}})


def pack(files, kind=tarfile.REGTYPE):
    """An archive of `files`; the last one is of this kind and, if it is a link, leads to what it contains."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for position, (name, text) in enumerate(files):
            entry = tarfile.TarInfo(name)
            entry.type = kind if position == len(files) - 1 else tarfile.REGTYPE
            entry.linkname = text if entry.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            entry.size = len(text.encode()) if entry.type == tarfile.REGTYPE else 0
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


class Item:
    def __init__(self, demo, **fields):
        self.demo, self.key = demo, demo.key("bo")
        self.guid = self.api("POST", "content", json={"name": f"attack-{os.urandom(4).hex()}", "access_type": "logged_in", **fields}).json()["guid"]

    def api(self, method, path, **more):
        return requests.request(method, self.demo.api(f"v1/{path}"), headers=self.key, timeout=60, **more)

    def deploy(self, archive):
        """The lines of the deploy; the refusal if the upload is refused."""
        made = self.api("POST", f"content/{self.guid}/bundles", data=archive)
        if made.status_code != 200:
            return made.status_code, made.text
        task = self.api("POST", f"content/{self.guid}/deploy", json={"bundle_id": made.json()["id"]}).json()["task_id"]
        while not (state := self.api("GET", f"tasks/{task}?first=0&wait=5").json())["finished"]:
            pass
        return state["code"], "\n".join(state["output"])

    def start(self, *more):
        code, output = self.deploy(pack([("manifest.json", manifest()), ("app.py", APP), *more]))
        assert code == 0, output
        return self

    def run(self, code, timeout=30):
        """What this code prints inside the app."""
        for _ in range(40):
            answer = requests.post(f"{self.demo['portal']}/content/{self.guid}/", headers=self.key, data=code.encode(), timeout=timeout)
            if answer.status_code == 200:
                return answer.text
            time.sleep(0.25)
        raise AssertionError(answer.text)

    def place(self):
        """The folder of the app's files on the machine: /proc tells it."""
        return pathlib.Path(self.run("print([l.split()[3] for l in open('/proc/self/mountinfo') if l.split()[4] == '/app'][0])").strip())


@pytest.fixture(scope="module")
def item(demo):
    return Item(demo).start()


@pytest.fixture(scope="module")
def other(demo):
    return Item(demo).start()


@pytest.fixture(scope="module")
def service():
    """The port of a service of the machine that apps must not reach; it answers with a secret."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            with server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nthe-secret")

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def each(attempts):
    """Code that says of each expression whether it worked."""
    return "import ctypes, os, socket\n" + "\n".join(
        f"try: print({attempt!r}, 'WORKED', {attempt})\nexcept Exception as error: print({attempt!r}, 'refused')" for attempt in attempts)


def test_an_app_sees_no_file_process_or_variable_of_the_portal_and_of_other_items(item, other):
    data = other.place().parents[4]
    assert (data / "keyring").exists() and other.place().exists()
    paths = [data, data / "keyring", other.place(), f"/proc/{os.getpid()}", str(pathlib.Path.home() / ".ssh"), "/sys/kernel", "/etc/shadow", "/var/lib"]
    assert "True" not in item.run(f"import os\nfor path in {[str(path) for path in paths]}: print(os.path.exists(path))")
    names = set(item.run("import os\nprint(*os.environ, sep='\\n')\nprint(open('/proc/1/environ').read().replace('=', '\\n='))").split())
    assert "CONNECT_API_KEY" in names
    assert not {name for name in os.environ if name.startswith(("VALETKEY", "PYTEST", "PYENV", "CARGO"))} & names
    assert len(item.run("import os\nprint(*[p for p in os.listdir('/proc') if p.isdigit()])").split()) < 10


def test_an_app_cannot_change_its_walls(item):
    call = "[lambda *a: a, ctypes.CDLL(None).syscall][1]"
    attempts = [f"1 / (1 + {call}({number}))" for number in ("272, 0x20000", "272, 0x10000000", "165, b'x', b'/tmp', b'tmpfs', 0, None", "166, b'/app', 2", "428, -100, b'/', 1")]
    attempts += ["os.setuid(0)", "os.chroot('/tmp')", "os.mknod('/tmp/disk', 0o60600, os.makedev(254, 0))", "socket.sethostname('x')", "socket.socket(2, 3, 1)", "socket.socket(17, 3)"]
    attempts += [f"open({path!r}, 'a')" for path in ("/app/x", "/env/x", "/usr/x", "/run/valetkey/launch.py", "/run/valetkey/servers/x", "/run/valetkey/inside", "/etc/passwd")]
    said = item.run(each(attempts))
    assert "WORKED" not in said and said.count("refused") == len(attempts), said


def test_an_app_has_no_network_but_its_uplink(item, service):
    hidden = socket.socket(socket.AF_UNIX)
    hidden.bind("\0valetkey-test")
    hidden.listen()
    addresses = [("127.0.0.1", service), ("169.254.169.254", 80), ("10.0.0.1", 80), ("1.1.1.1", 53)]
    said = item.run(each([f"socket.create_connection({address}, 2)" for address in addresses] + ["socket.socket(socket.AF_UNIX).connect('\\0valetkey-test')"]))
    assert "WORKED" not in said and said.count("refused") == 5, said


def test_the_way_out_refuses_private_addresses_in_every_notation(item, service):
    hosts = "0.0.0.0 0 2130706433 127.1 0x7f.1 127.0.0.1. localhost. sub.localhost [::1] [::] [::ffff:127.0.0.1] ::ffff:127.0.0.1 [64:ff9b::7f00:1] 10.0.0.1 192.168.0.1 100.64.0.1 169.254.169.254 [::ffff:a9fe:a9fe] [fe80::1]".split()
    said = item.run(f"""
import socket
def ask(line):
    way = socket.create_connection(("127.0.0.1", 29001), 20)
    way.sendall(f"{{line}} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
    print(line, way.recv(100).split(b"\\r\\n")[0].decode())
for host in {hosts}:
    ask(f"CONNECT {{host}}:{service}")
for address in ("http://[::1]:{service}/", "http://0:{service}/", "https://127.0.0.1:{service}/", "http://169.254.169.254/", "file:///etc/passwd", "/"):
    ask("GET " + address)
""")
    answers = re.findall(r"HTTP/1.1 (\d+)", said)
    assert len(answers) == len(hosts) + 6 and set(answers) <= {"400", "403", "502"}, said


def test_the_key_of_an_app_opens_nothing_of_others_and_dies_with_it(demo, item, other):
    def status(key, method, path, **more):
        return requests.request(method, demo.api(path), headers={"Authorization": f"Key {key}"}, **more).status_code

    key = item.run("import os\nprint(os.environ['CONNECT_API_KEY'])").strip()
    assert status(key, "GET", f"v1/content/{item.guid}") == 200
    for method, path in [("GET", f"v1/content/{other.guid}"), ("DELETE", f"v1/content/{other.guid}"), ("GET", f"v1/content/{other.guid}/bundles"), ("GET", "v1/content"), ("GET", "v1/users"),
                         ("POST", "v1/content"), ("GET", f"v1/content/{item.guid}/environment"), ("GET", "v1/oauth/sessions")]:
        assert status(key, method, path) in (403, 404), path
    assert requests.get(f"{demo['portal']}/content/{other.guid}/", headers={"Authorization": f"Key {key}"}).status_code == 401
    short = Item(demo).start()
    key = short.run("import os\nprint(os.environ['CONNECT_API_KEY'])").strip()
    assert status(key, "GET", f"v1/content/{short.guid}") == 200
    short.api("DELETE", f"content/{short.guid}")
    time.sleep(3)
    assert status(key, "GET", f"v1/content/{short.guid}") == 401


@pytest.mark.parametrize("bomb", [
    "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.01)",
    "open('/dev/shm/x', 'wb').write(b'x' * (600 << 20)); x = [bytearray(b'x') * (600 << 20) for _ in range(9)]",
    "import os\nwhile True: os.write(1, b'\\n' * 65536)",
    "import socket\nways = [socket.socket(socket.AF_UNIX) for _ in range(1500)]\nfor way in ways:\n    way.connect('/run/valetkey/uplink'); way.send(b'C')\nimport time; time.sleep(9)",
], ids=["forks", "memory", "output", "uplinks"])
def test_others_stay_available_while_an_app_explodes(demo, other, bomb):
    loud = Item(demo).start()
    loud.run(f"import threading\nthreading.Thread(target=exec, args=({bomb!r}, {{}})).start()")
    end = time.monotonic() + 3
    while time.monotonic() < end:
        begun = time.monotonic()
        assert other.run("print('here')").strip() == "here"
        assert requests.get(f"{demo['portal']}/login").status_code == 200
        assert time.monotonic() - begun < 2
    assert sum(path.stat().st_size for path in other.place().parents[3].joinpath(loud.guid, "logs").iterdir()) < 12 << 20
    assert loud.api("DELETE", f"content/{loud.guid}").status_code == 204


def test_hostile_archives_and_manifests_are_refused(item):
    for name, kind in [("link", tarfile.SYMTYPE), ("link", tarfile.LNKTYPE), ("device", tarfile.BLKTYPE), ("pipe", tarfile.FIFOTYPE), ("../out", tarfile.REGTYPE),
                       ("a/../../out", tarfile.REGTYPE), ("/tmp/out", tarfile.REGTYPE), ("app.py", tarfile.REGTYPE), ("app.py/x", tarfile.REGTYPE), ("d/" * 60 + "x", tarfile.REGTYPE)]:
        code, output = item.deploy(pack([("manifest.json", manifest()), ("app.py", APP), (name, "app.py")], kind))
        assert code == 1 and "asks for no packages" not in output, (name, kind, output)
    assert item.deploy(gzip.compress(tarfile.TarInfo("x").tobuf() * 25_000, 1))[0] == 400
    for fields in ({"entry": "../x"}, {"entry": "/etc/passwd"}, {"entry": "-c"}, {"entry": "a\0"}, {"manager": "pip", "package_file": "../x"}, {"manager": "pip", "package_file": "--help"}):
        assert item.deploy(pack([("app.py", APP), ("manifest.json", manifest(**fields))]))[0] == 400, fields


def test_nothing_is_left_when_the_portal_is_killed(tmp_path):
    with open(tmp_path / "log", "w") as log:
        portal = subprocess.Popen([BINARY, "demo", "--json", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "d")], stdout=subprocess.PIPE, stderr=log, text=True)
    sleeper = Item(Demo(json.loads(portal.stdout.readline())))
    sleeper.deploy(pack([("manifest.json", manifest()), ("app.py", "def app(environ, start):\n    start('200 OK', [])\n    return [b'here']\n")]))
    requests.get(f"{sleeper.demo['portal']}/content/{sleeper.guid}/", headers={**sleeper.key, "Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, timeout=60)
    time.sleep(1)
    ours = lambda: [path for path in pathlib.Path("/proc").glob("[0-9]*/cmdline") if path.exists() and str(tmp_path / "d/content").encode() in path.read_bytes()]
    assert ours()
    portal.send_signal(signal.SIGKILL)
    portal.wait()
    time.sleep(1)
    assert not ours()


def test_variables_of_publishers_do_not_reach_programs_outside_the_sandbox(demo, tmp_path):
    victim = Item(demo)
    victim.api("PATCH", f"content/{victim.guid}/environment", json=[{"name": "LD_DEBUG", "value": "files"}, {"name": "LD_DEBUG_OUTPUT", "value": str(tmp_path / "written")}])
    victim.start().run("")
    assert not list(tmp_path.iterdir())


# Ways to ask for an editable package, which uv builds even where it must not build; also such as are read as other lines.
EDITABLE = ["-e ./own\n", "# x \\\n-e ./own\n", "# x\r-e ./own\n", "--require-hashes -e ./own\n", "--pre -e ./own\n", "own @ ./own\n"]


@pytest.mark.parametrize("lines", EDITABLE)
def test_no_code_of_a_bundle_runs_where_the_shared_cache_can_be_written(demo, lines):
    code = "import os\nraise SystemExit('ST' + 'ORE ' + ' '.join(os.listdir('/store')))"
    files = [("manifest.json", manifest(manager="pip")), ("app.py", APP), ("requirements.txt", lines), ("own/pyproject.toml", BACKEND), ("own/backend.py", code)]
    _, output = Item(demo).deploy(pack(files))
    assert "with a cache of its own" in output and "STORE" not in output, output


def test_requirements_do_not_reach_services_of_the_machine(demo, service):
    files = [("manifest.json", manifest(manager="pip")), ("app.py", APP), ("requirements.txt", f"-r http://127.0.0.1:{service}/x.txt\n")]
    _, output = Item(demo).deploy(pack(files))
    assert "the-secret" not in output


def test_a_notebook_cannot_make_its_page_a_link_to_files_of_the_portal(demo, tmp_path):
    (tmp_path / "secret").write_text("of the portal")
    notebook = Item(demo)
    notebook.deploy(pack([("manifest.json", manifest("jupyter-static", "n.ipynb")), ("n.ipynb", "{}"), ("nbconvert.py", f"import os\nos.symlink({str(tmp_path / 'secret')!r}, '/out/output.html')")]))
    assert "of the portal" not in requests.get(f"{demo['portal']}/content/{notebook.guid}/", headers=notebook.key).text
