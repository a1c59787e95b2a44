"""What belongs around the program: the files that it prints, the service manager, and outer proxies with `valetkey doctor`
behind them. Needs nginx and caddy."""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
import requests

from conftest import BINARY, ROOT
from servers import free_port, wait_for


def environment(folder, listen, **more):
    own = {name: value for name, value in os.environ.items() if not name.startswith("VALETKEY_")}
    return {**own, "VALETKEY_DATA_DIR": str(folder / "data"), "VALETKEY_LISTEN": f"127.0.0.1:{listen}", "VALETKEY_LOG": "warn", "VALETKEY_RUN_CONTENT": "off", **more}


def printed(*arguments):
    return subprocess.run([BINARY, *arguments], capture_output=True, text=True, check=True).stdout


def answers(url, **options):
    try:
        return requests.get(url, timeout=5, **options)
    except requests.RequestException:
        return None


def test_the_version_names_the_commit():
    assert re.fullmatch(r"valetkey \d+\.\d+\.\d+ \(([0-9a-f]{12}|unknown)\)\n", printed("--version"))


def test_every_file_is_listed_printed_and_written(tmp_path):
    names = [line.split()[0] for line in printed("files").splitlines()]
    printed("files", "--into", str(tmp_path))
    for name in names:
        assert printed("files", name) == (tmp_path / name).read_text() == (ROOT / "templates/operation" / name).read_text()
    refused = subprocess.run([BINARY, "files", "nothing"], capture_output=True, text=True)
    assert refused.returncode == 1 and "there is no file nothing" in refused.stderr
    manual = (tmp_path / "man" / "valetkey-serve.1").read_text()
    assert ".TH" in manual and "public" in manual
    checked = subprocess.run(["bash", "-c", 'source "$1" && complete -p valetkey', "bash", str(tmp_path / "completions/valetkey.bash")], capture_output=True, text=True)
    assert checked.returncode == 0 and "valetkey" in checked.stdout, checked.stderr
    json.loads((tmp_path / "dashboard.json").read_text())


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_the_unit_is_one_that_systemd_understands(tmp_path):
    unit = tmp_path / "valetkey.service"
    unit.write_text(printed("files", "valetkey.service").replace("/usr/bin/valetkey", str(pathlib.Path(BINARY).resolve())).replace("Documentation=man:valetkey(1)\n", ""))
    checked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert checked.returncode == 0 and not checked.stderr.strip(), checked.stderr
    rated = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True)
    exposure = float(re.search(r"exposure level for valetkey.service: ([0-9.]+)", rated.stdout).group(1))
    assert exposure < 4, rated.stdout


def test_the_service_manager_hears_of_start_life_and_stop(tmp_path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    listener.settimeout(90)
    port = free_port()
    settings = environment(tmp_path, port, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000")
    process = subprocess.Popen([BINARY, "serve"], env=settings, stdout=subprocess.DEVNULL)
    try:
        said = []

        def until(word):
            end = time.monotonic() + 90
            while word not in said:
                assert time.monotonic() < end, said
                said.extend(listener.recv(4096).decode().split())

        until("READY=1")
        assert answers(f"http://127.0.0.1:{port}/__ping__").status_code == 200, "ready means that requests are answered"
        until("WATCHDOG=1")
        said.clear()
        until("WATCHDOG=1")
        process.send_signal(signal.SIGTERM)
        until("STOPPING=1")
        assert process.wait(40) == 0
    finally:
        process.kill()


def nginx(folder, port, upstream):
    text = printed("files", "nginx.conf").replace("127.0.0.1:8080", f"127.0.0.1:{upstream}")
    text = text.replace("    listen 443 ssl;\n    listen [::]:443 ssl;\n", f"    listen 127.0.0.1:{port};\n")
    text = re.sub(r"    ssl_certificate.*\n", "", text).replace("portal.example.org *.apps.example.org", "127.0.0.1 localhost")
    (folder / "site.conf").write_text(text)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}} http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/temp; "
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; include {folder}/site.conf; }}"
    )
    return ["nginx", "-c", str(folder / "nginx.conf"), "-e", "stderr"]


def caddy(folder, port, upstream):
    text = printed("files", "Caddyfile").replace("127.0.0.1:8080", f"127.0.0.1:{upstream}")
    text = text.replace("portal.example.org, *.apps.example.org", f"http://127.0.0.1:{port}, http://localhost:{port}")
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


@pytest.mark.parametrize("proxy", [nginx, caddy])
def test_the_doctor_finds_nothing_wrong_behind_a_proxy_set_up_as_printed(tmp_path, proxy):
    port, upstream = free_port(), free_port()
    public = {"VALETKEY_PUBLIC_URL": f"http://127.0.0.1:{port}", "VALETKEY_CONTENT_URL": f"http://localhost:{port}", "VALETKEY_TRUSTED_PROXIES": "127.0.0.1"}
    settings = environment(tmp_path, upstream, **public)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    server = subprocess.Popen([BINARY, "serve"], env=settings, **quiet)
    home = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    outer = subprocess.Popen(proxy(tmp_path, port, upstream), env=home, **quiet)
    try:
        assert wait_for(lambda: answers(f"http://127.0.0.1:{port}/__ping__")).status_code == 200
        report = subprocess.run([BINARY, "doctor", "--json"], env=settings, capture_output=True, text=True, timeout=120)
        found = json.loads(report.stdout)
        assert not [line for line in found if line["verdict"] == "bad"], report.stdout
        assert {"way", "events"} <= {line["code"] for line in found}, "the way through the proxy was looked at"
        started = time.monotonic()
        subprocess.run([BINARY, "doctor", "--json"], env=settings, capture_output=True, timeout=120)
        print(f"doctor behind {proxy.__name__}: {time.monotonic() - started:.1f} s")
        # Without what the proxy must pass on, the doctor says so.
        if proxy is nginx:
            outer.terminate()
            outer.wait(20)
            site = tmp_path / "site.conf"
            site.write_text(re.sub(r"        proxy_set_header (Upgrade|Connection).*\n|    proxy_buffering off;\n", "", site.read_text()))
            outer = subprocess.Popen(["nginx", "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"], env=home, **quiet)
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/__ping__"))
            report = subprocess.run([BINARY, "doctor", "--json"], env=settings, capture_output=True, text=True, timeout=120)
            assert report.returncode == 1
            found = {line["code"] for line in json.loads(report.stdout) if line["verdict"] == "bad"}
            assert "no_upgrade" in found, report.stdout
    finally:
        for process in (outer, server):
            process.terminate()
            process.wait(40)
