"""Figures of deployed content. python3 tests/bench/deployed.py BINARY, with the Python that has the clients' packages; needs wrk.

From a command to the first page; starting a stopped app, for each kind; a request to a deployed app beside the same app elsewhere; memory of the portal
for each running process; fifty items started at once, and the portal's pages meanwhile.
"""
import concurrent.futures
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/clients"))
os.environ["TEST_BIN"] = sys.argv[1]
import requests  # noqa: E402
import test_deploy as tools  # noqa: E402
from conftest import Demo, Viewer  # noqa: E402

MANY, AT_ONCE = 100, 50
commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
# The portal logs each process that starts.
process = subprocess.Popen([sys.argv[1], "demo", "--json", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                           env={**os.environ, "VALETKEY_LOG": "error"})
demo = Demo(json.loads(process.stdout.readline()))
vera = Viewer(demo, "vera")


def memory():
    return int(re.search(r"Private_Dirty:\s+(\d+)", pathlib.Path(f"/proc/{process.pid}/smaps_rollup").read_text()).group(1))


def patch(guid, **fields):
    answer = tools.call(demo, "PATCH", f"content/{guid}", json=fields)
    assert answer.status_code == 200, answer.text


def jobs(guid, wanted):
    found = tools.call(demo, "GET", f"content/{guid}/jobs").json()
    return [job["state"] for job in found].count(wanted)


def first_page(url, patience=120):
    started = time.monotonic()
    page = vera.open(url)
    if page.status_code == 202:
        page = tools.opened(vera.http, url, patience)
    assert page.status_code == 200, (page.status_code, page.text[:300])
    return time.monotonic() - started


def stopped(guid):
    """Lets an app's processes end for want of visitors."""
    patch(guid, idle_timeout=1, min_processes=0)
    for _ in range(600):
        if jobs(guid, "ready") == 0:
            return
        time.sleep(0.1)
    raise AssertionError("it does not stop")


print(f"Commit {commit}, {os.cpu_count()} cores, {platform.machine()}, everything on one machine.\n")
print("| kind | `rsconnect deploy` to the first page, packages cached, s | a stopped app to its page, s |\n| --- | --- | --- |")
# rsconnect writes beside what it deploys.
samples = pathlib.Path(shutil.copytree(tools.SAMPLES, tempfile.mkdtemp(), dirs_exist_ok=True))
for kind, (folder, words) in tools.KINDS.items():
    words = [word.format(samples / folder) for word in words]
    took = []
    # The second one finds all packages in the cache.
    for turn in range(2):
        started = time.monotonic()
        code, output = tools.rsconnect(demo, "deploy", *words, "--title", f"{kind} {turn}", "--new")
        assert code == 0, output
        guid = tools.guid_in(output)
        patch(guid, access_type="logged_in")
        url = tools.call(demo, "GET", f"content/{guid}").json()["content_url"]
        first_page(url)
        took.append(time.monotonic() - started)
    if kind in ("html", "notebook"):
        again = "no process"
    else:
        stopped(guid)
        again = f"{first_page(url):.1f}"
    print(f"| {kind} | {took[1]:.1f} | {again} |", flush=True)

# — A request to a deployed app beside the same app elsewhere. —
answer = "x" * 1024
archive = tools.packed({"app.py": tools.wsgi(answer)}, tools.manifest())
here = tools.new_content(demo, "deployed-here")
assert tools.deployed(demo, here["guid"], archive)["code"] == 0
patch(here["guid"], min_processes=1, max_processes=1)
elsewhere = tools.new_content(demo, "elsewhere")
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "waitress"], check=True)
app = "from waitress import serve\nimport sys\nexec(sys.argv[1])\nserve(app, host='127.0.0.1', port=18733, threads=4)"
other = subprocess.Popen([sys.executable, "-c", app, tools.wsgi(answer)], stderr=subprocess.DEVNULL)
time.sleep(2)
patch(elsewhere["guid"], upstream_url="http://127.0.0.1:18733")


def rate(item):
    """Requests a second, and CPU of the portal for each in µs."""
    url = tools.call(demo, "GET", f"content/{item['guid']}").json()["content_url"]
    page = vera.open(url)
    if page.status_code == 202:
        page = tools.opened(vera.http, url)
    cookies = tools.cookies_for(vera.http, page.url)
    ticks = lambda: sum(map(int, pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")
    before = ticks()
    out = subprocess.run(["wrk", "-t", "1", "-c", "8", "-d", "5s", "-H", f"Cookie: {cookies}", page.url], capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in out, out
    made = int(re.search(r"(\d+) requests in", out).group(1))
    return made / 5, (ticks() - before) * 1e6 / made


turns = {"deployed": [], "elsewhere": []}
for _ in range(3):
    turns["deployed"].append(rate(here))
    turns["elsewhere"].append(rate(elsewhere))
median = {name: [statistics.median(part) for part in zip(*measured)] for name, measured in turns.items()}
print("\n| the same app | requests/s | CPU of the portal, µs/request |\n| --- | --- | --- |")
for name, (made, cost) in median.items():
    print(f"| {name} | {made:,.0f} | {cost:.1f} |")
print(f"\nDeployed {median['deployed'][0] / median['elsewhere'][0]:.2f} of elsewhere, medians of three turns. An app in the sandbox is reached through a socket and a port of its own.", flush=True)
other.terminate()

# — Memory of the portal for each running process. —
items = []
for number in range(MANY):
    item = tools.new_content(demo, f"many-{number}")
    assert tools.deployed(demo, item["guid"], archive)["code"] == 0
    items.append(item)
for item in items:
    stopped(item["guid"])
before = memory()
for item in items:
    patch(item["guid"], min_processes=1, max_processes=1, idle_timeout=600)
for item in items:
    for _ in range(1200):
        if jobs(item["guid"], "ready") == 1:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("it does not start")
time.sleep(5)
after = memory()
print(f"\n{MANY} processes: {(after - before) / MANY:.0f} kB of the portal for each (goal: under 200); the portal itself {before / 1024:.0f} MB before, {after / 1024:.0f} MB with them.", flush=True)

# — Fifty started at once. —
for item in items:
    stopped(item["guid"])
urls = [tools.call(demo, "GET", f"content/{item['guid']}").json()["content_url"] for item in items[:AT_ONCE]]
key = demo.key("vera")
pages, going = [], True


def watch():
    while going:
        started = time.monotonic()
        answer = requests.get(demo["portal"] + "/login")
        pages.append((time.monotonic() - started) * 1000)
        assert answer.status_code == 200
        time.sleep(0.05)


watching = threading.Thread(target=watch)
watching.start()


def visit(url):
    started = time.monotonic()
    answer = requests.get(url, headers=key, timeout=120)
    while answer.status_code in (202, 503) and time.monotonic() - started < 120:
        time.sleep(0.2)
        answer = requests.get(url, headers=key, timeout=120)
    return answer.status_code, time.monotonic() - started


with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
    answers = list(pool.map(visit, urls))
going = False
watching.join()
assert all(status == 200 for status, _ in answers), answers
pages.sort()
print(f"\n{AT_ONCE} items started at once: all answered, the last after {max(took for _, took in answers):.1f} s; "
      f"pages of the portal meanwhile p50 {statistics.median(pages):.0f} ms, p99 {pages[int(len(pages) * 0.99)]:.0f} ms, longest {pages[-1]:.0f} ms (goal: under 100).")
process.terminate()
process.wait(60)
