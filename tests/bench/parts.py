"""What both benchmarks need: an upstream (nginx), the demo, and a viewer who has come to its content."""
import contextlib
import html
import http.cookiejar
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

APP, PLAIN = "http://127.0.0.1:18701/", "http://127.0.0.1:18702/"


class Viewer:
    def __init__(self):
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))

    def get(self, url, data=None):
        with self.opener.open(urllib.request.Request(url, data, {"Accept": "text/html"})) as answer:
            return answer.geturl(), answer.read().decode()

    def send(self, page, values):
        url, text = page
        form = next(part for part in re.findall(r"<form method=\"post\"(.*?)</form>", text, re.S) if "/logout" not in part and "/theme" not in part)
        hidden = {html.unescape(n): html.unescape(v) for n, v in re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', form)}
        action = html.unescape(re.search(r'action="([^"]*)"', form).group(1))
        return self.get(urllib.parse.urljoin(url, action), urllib.parse.urlencode({**hidden, **values}).encode())

    def open(self, url):
        page = self.get(url)
        for _ in range(9):
            if 'name="next"' in page[1]:
                page = self.send(page, {"username": "vera", "password": "valetkey-demo"})
            elif "/consents/new" in page[0]:
                page = self.send(page, {})
            elif 'id="signin"' in page[1]:
                page = self.send(page, {"username": "vera@example.org", "password": "valetkey-demo"})
            elif 'id="accept"' in page[1]:
                page = self.send(page, {"choice": "accept"})
            else:
                return page


@contextlib.contextmanager
def upstream():
    """nginx as the app, 1 KiB; and nginx as a proxy in front of it. Gives the workers' process ids."""
    folder = pathlib.Path(tempfile.mkdtemp())
    config = folder / "nginx.conf"
    config.write_text(f"""
worker_processes 2; daemon off; pid {folder}/pid; error_log /dev/null;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 10000000;
  upstream app {{ server 127.0.0.1:18701; keepalive 64; keepalive_requests 10000000; }}
  server {{ listen 127.0.0.1:18701; location / {{ add_header X-Token $http_posit_connect_user_session_token; return 200 "{'x' * 1024}"; }} }}
  server {{ listen 127.0.0.1:18702; location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }} }}
}}
""")
    web = subprocess.Popen(["nginx", "-c", str(config)])
    try:
        time.sleep(1)
        yield [int(pid) for pid in subprocess.run(["pgrep", "-P", str(web.pid)], capture_output=True, text=True).stdout.split()]
    finally:
        web.terminate()


@contextlib.contextmanager
def demo(binary, *options):
    """A demo; what it prints about itself, and its process id."""
    process = subprocess.Popen([binary, "demo", "--json", "--listen", "127.0.0.1:0", *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "VALETKEY_LOG": "error"})
    try:
        here = json.loads(process.stdout.readline())
        time.sleep(1)
        yield {**here, "pid": process.pid}
    finally:
        process.terminate()
        process.wait(40)


def key(here):
    return next(account for account in here["accounts"] if account["username"] == "bo")["api_key"]


def open_content(here):
    """A viewer signs in, consents and sees the app; then nginx takes the app's place. The cookies and the address for programs."""
    content, viewer = here["content"][0], Viewer()
    page = viewer.open(content["url"])
    assert "vera@example.org" in page[1], page[0]
    patch = urllib.request.Request(f"{here['portal']}/__api__/v1/content/{content['guid']}", json.dumps({"upstream_url": APP}).encode(), {"Authorization": f"Key {key(here)}"}, method="PATCH")
    urllib.request.urlopen(patch).read()
    # Content stands on an origin of its own, with cookies of its own.
    request = urllib.request.Request(page[0])
    viewer.jar.add_cookie_header(request)
    return request.get_header("Cookie"), page[0]
