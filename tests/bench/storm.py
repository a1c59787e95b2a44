"""Signs 50 invented people in at once, again and again, and measures what that does to somebody who is using an app."""
import http.client
import multiprocessing
import re
import statistics
import sys
import threading
import time
import urllib.parse

import parts

SECONDS, BINARY = float(sys.argv[1]), sys.argv[2]
SIGNING_IN = 50


def paced(cookie, address, seconds):
    """Latencies in ms of one request every 5 ms, each timed from when it was due: a wait is not hidden by the next one."""
    url = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname, url.port)
    taken, due = [], time.monotonic()
    end = due + seconds
    while due < end:
        time.sleep(max(0, due - time.monotonic()))
        connection.request("GET", url.path, headers={"Cookie": cookie})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        taken.append((time.monotonic() - due) * 1000)
        due += 0.005
    connection.close()
    return statistics.quantiles(taken, n=100)


def sign_in(portal, number, stop, counts):
    url = urllib.parse.urlsplit(portal)
    connection = http.client.HTTPConnection(url.hostname, url.port)
    connection.request("GET", "/login", headers={"Accept": "text/html"})
    answer = connection.getresponse()
    page = answer.read().decode()
    cookie = answer.getheader("Set-Cookie").split(";")[0]
    csrf = re.search(r'name="csrf" value="([^"]*)"', page).group(1)
    headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded", "Origin": portal}
    tries = 0
    while not stop.is_set():
        tries += 1
        # A new name each time: ten tries for one name would end in 429 without any hash.
        body = urllib.parse.urlencode({"csrf": csrf, "next": "", "username": f"nobody-{number}-{tries}", "password": "long enough"})
        connection.request("POST", "/login", body, headers)
        answer = connection.getresponse()
        answer.read()
        counts.append(answer.status)


def storm(portal, stop, results):
    """In a process of its own, so that it does not slow the one that measures."""
    counts = []
    threads = [threading.Thread(target=sign_in, args=(portal, number, stop, counts)) for number in range(SIGNING_IN)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(counts)


with parts.upstream(), parts.demo(BINARY) as demo:
    cookie, url = parts.open_content(demo)
    paced(cookie, url, 1)
    rows = []
    for _ in range(3):
        idle = paced(cookie, url, SECONDS)
        stop, results = multiprocessing.Event(), multiprocessing.Queue()
        process = multiprocessing.Process(target=storm, args=(demo["portal"], stop, results))
        process.start()
        time.sleep(2)
        busy = paced(cookie, url, SECONDS)
        stop.set()
        counts = results.get()
        process.join()
        rows.append((idle, busy, counts))

print(f"| round | idle p50 / p99 ms | with {SIGNING_IN} people signing in, p50 / p99 ms | p99 ratio | goal | password checks |")
print("| --- | --- | --- | --- | --- | --- |")
for number, (idle, busy, counts) in enumerate(rows, 1):
    statuses = ", ".join(f"{counts.count(status)} × {status}" for status in sorted(set(counts)))
    print(f"| {number} | {idle[49]:.2f} / {idle[98]:.2f} | {busy[49]:.2f} / {busy[98]:.2f} | {busy[98] / idle[98]:.2f} | ≤ 2 | {statuses} |")
