"""WebSockets through the proxy, case by case in the order of the Autobahn test suite (which is written for Python 2): framing,
pings, reserved bits, opcodes, fragments, UTF-8, closing, limits, compression. Each case is played against the app directly and
through the portal, byte by byte; what comes back must be the same. The app is the `websockets` package's server, as it comes."""
import asyncio
import os
import random
import socket
import struct
import threading
import time
import urllib.parse

import pytest
import websockets

QUIET, LONGEST = 0.25, 20.0
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(opcode, payload=b"", fin=True, rsv=0, masked=True):
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", len(payload))
    if not masked:
        return head + payload
    mask = b"\x37\xfa\x21\x3d"
    return head + mask + (payload if not payload else bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload)))


def close(code=None, reason=b""):
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def fragments(opcode, pieces):
    last = len(pieces) - 1
    return b"".join(frame(opcode if place == 0 else 0, piece, fin=place == last) for place, piece in enumerate(pieces))


def cases():
    """Name, bytes to send, and in pieces of how many bytes."""
    end = close(1000)
    for kind, byte in ((TEXT, b"*"), (BINARY, b"\xfe")):
        for size in (0, 125, 126, 127, 128, 65535, 65536):
            yield f"1 opcode {kind}, {size} bytes", frame(kind, byte * size) + end, None
        yield f"1 opcode {kind}, in pieces of 997", frame(kind, byte * 65536) + end, 997
        yield f"1 opcode {kind}, byte by byte", frame(kind, byte * 300) + end, 1
    for name, payload in (("empty", b""), ("words", b"Hello, world!"), ("binary", b"\x00\xff\xfe\xfd"), ("125 bytes", b"\xfe" * 125)):
        yield f"2 ping, {name}", frame(PING, payload) + end, None
    yield "2 ping, 126 bytes", frame(PING, b"\xfe" * 126), None
    yield "2 ping, byte by byte", frame(PING, b"\xfe" * 125) + end, 1
    yield "2 pong unasked", frame(PONG) + frame(PONG, b"x") + frame(PING, b"y") + end, None
    yield "2 ten pings", b"".join(frame(PING, b"payload-%d" % number) for number in range(10)) + end, None
    yield "2 ten pings, byte by byte", b"".join(frame(PING, b"payload-%d" % number) for number in range(10)) + end, 1
    for rsv in range(1, 8):
        yield f"3 reserved bits {rsv}", frame(TEXT, b"a") + frame(TEXT, b"b", rsv=rsv) + frame(PING), None
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"4 opcode {opcode}", frame(TEXT, b"a") + frame(opcode, b"b") + frame(PING), None
    yield "5 fragmented ping", frame(PING, b"a", fin=False) + frame(0, b"b"), None
    yield "5 fragmented pong", frame(PONG, b"a", fin=False) + frame(0, b"b"), None
    yield "5 two fragments", fragments(TEXT, [b"one", b"two"]) + end, None
    yield "5 two fragments, byte by byte", fragments(TEXT, [b"one", b"two"]) + end, 1
    yield "5 ping between fragments", frame(TEXT, b"one", fin=False) + frame(PING, b"p") + frame(0, b"two") + end, None
    yield "5 two pings between three fragments", frame(TEXT, b"1", fin=False) + frame(PING, b"p") + frame(0, b"2", fin=False) + frame(PING, b"q") + frame(0, b"3") + end, 1
    yield "5 continuation of nothing", frame(0, b"x") + frame(TEXT, b"y"), None
    yield "5 continuation of nothing, unfinished", frame(0, b"x", fin=False) + frame(TEXT, b"y"), None
    yield "5 new message inside another", frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), None
    yield "5 empty fragments", fragments(TEXT, [b"", b"", b""]) + end, None
    for name, payload in (("", b""), ("plain", b"Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!"), ("planes", "\U0010ffff\ufffd\u0800".encode())):
        yield f"6 valid {name}", frame(TEXT, payload) + end, None
        yield f"6 valid {name}, a fragment a byte", (fragments(TEXT, [bytes([byte]) for byte in payload]) if payload else frame(TEXT)) + end, None
    for name, payload in (("surrogate", b"\xed\xa0\x80"), ("overlong", b"\xc0\xaf"), ("too high", b"\xf4\x90\x80\x80"), ("cut", b"\xce\xba\xe1\xbd"), ("stray", b"\x80"), ("five bytes", b"\xf8\x88\x80\x80\x80"), ("0xff", b"ab\xff")):
        yield f"6 invalid {name}", frame(TEXT, payload) + end, None
        yield f"6 invalid {name}, a fragment a byte", fragments(TEXT, [bytes([byte]) for byte in payload]) + end, None
    yield "7 message, then close", frame(TEXT, b"x") + end, None
    yield "7 two closes", end + end, None
    yield "7 ping after close", end + frame(PING), None
    yield "7 message after close", end + frame(TEXT, b"x"), None
    yield "7 half a message, then close", frame(TEXT, b"x", fin=False) + end, None
    yield "7 large message, then close", frame(TEXT, b"*" * 262144) + end + frame(PING), None
    yield "7 empty close", close(), None
    yield "7 close of one byte", frame(CLOSE, b"a"), None
    yield "7 close with 123 bytes of reason", close(1000, b"*" * 123), None
    yield "7 close with 124 bytes of reason", frame(CLOSE, struct.pack("!H", 1000) + b"*" * 124), None
    yield "7 close with a bad reason", close(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80"), None
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
        yield f"7 code {code}", close(code), None
    for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535):
        yield f"7 bad code {code}", close(code), None
    yield "7 not masked", frame(TEXT, b"x", masked=False), None
    long = os.environ.get("TEST_LONG")
    for power in (16, 18, 20) + ((22, 24) if long else ()):
        for kind, byte in ((TEXT, b"*"), (BINARY, b"\xfe")):
            yield f"9 opcode {kind}, 2^{power} bytes", frame(kind, byte * 2**power) + end, None
            yield f"9 opcode {kind}, 2^{power} bytes in fragments", fragments(kind, [byte * 4096] * (2**power // 4096)) + end, None
    chance = random.Random(1)
    for number in range(200 if long else 40):
        # Anything at all, as long as both sides see the same.
        noise = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 200)))
        yield f"10 noise {number}", frame(TEXT, b"first") + noise, chance.choice([None, 1, 7])


@pytest.fixture(scope="module")
def echo():
    """An echo server on a port of its own."""
    ready = threading.Event()
    here = {}

    async def serve():
        async def back(connection):
            async for message in connection:
                await connection.send(message)

        async with websockets.serve(back, "127.0.0.1", 0, max_size=2**26, ping_interval=None, close_timeout=2) as server:
            here["port"] = server.sockets[0].getsockname()[1]
            ready.set()
            await asyncio.Future()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    ready.wait(10)
    return here["port"]


@pytest.fixture(scope="module")
def places(demo, viewer, app, echo):
    """Where to connect, with which fields: directly, and through the portal."""
    content = viewer("bo").http.post(demo.api("v1/content"), headers=demo.key("bo"), json={"name": "echo", "access_type": "logged_in", "upstream_url": app}).json()
    vera = viewer("vera")
    page = vera.open(content["content_url"])
    place = urllib.parse.urlsplit(page.url)
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in vera.http.cookies if cookie.domain.startswith(place.hostname))
    changed = vera.http.patch(demo.api(f"v1/content/{content['guid']}"), headers=demo.key("bo"), json={"upstream_url": f"http://127.0.0.1:{echo}"})
    assert changed.status_code == 200, changed.text
    return {
        "direct": (echo, "/", f"127.0.0.1:{echo}", ""),
        "proxied": (place.port, place.path, place.netloc, f"Origin: {place.scheme}://{place.netloc}\r\nCookie: {cookies}\r\n"),
    }


def connect(place, fields=""):
    port, path, host, own = place
    wire = socket.create_connection(("127.0.0.1", port))
    wire.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{own}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = wire.recv(1)
        assert byte, head
        head += byte
    assert head.startswith(b"HTTP/1.1 101"), head
    return wire


def play(place, sent, pieces):
    """What comes back, and whether the other side closed."""
    wire = connect(place)
    got, ended = bytearray(), False
    began = time.monotonic()

    def send():
        try:
            for start in range(0, len(sent), pieces or len(sent) or 1):
                wire.sendall(sent[start : start + (pieces or len(sent))])
        except OSError:
            pass  # The other side has heard enough.

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    wire.settimeout(QUIET)
    while time.monotonic() - began < LONGEST:
        try:
            piece = wire.recv(65536)
        except TimeoutError:
            if sending.is_alive():
                continue
            break
        except OSError:
            ended = True
            break
        if not piece:
            ended = True
            break
        got += piece
    sending.join(5)
    wire.close()
    return bytes(got), ended


@pytest.mark.parametrize("group", ["1", "2", "3", "4", "5", "6", "7", "9", "10"])
def test_a_proxied_socket_is_like_a_direct_one(places, group):
    played = 0
    for name, sent, pieces in cases():
        if name.split(" ")[0] != group:
            continue
        direct, proxied = play(places["direct"], sent, pieces), play(places["proxied"], sent, pieces)
        if direct != proxied:
            # What an app says last may be lost where a peer goes on sending into a closed connection, on either way: once more.
            direct, proxied = play(places["direct"], sent, pieces), play(places["proxied"], sent, pieces)
        assert direct[0] == proxied[0], f"{name}: {direct[0][:80]!r} directly, {proxied[0][:80]!r} through the portal"
        assert direct[1] == proxied[1], f"{name}: closed {direct[1]} directly, {proxied[1]} through the portal"
        played += 1
    print(f"group {group}: {played} cases")
    assert played >= 5


def test_compression_and_ordinary_clients(places):
    """Groups 12 and 13: messages compressed by the client and the app, through the portal."""
    port, path, host, own = places["proxied"]
    headers = dict(line.split(": ", 1) for line in own.strip().split("\r\n"))
    origin = headers.pop("Origin")

    async def talk():
        uri = f"ws://{host}{path}"
        async with websockets.connect(uri, origin=origin, additional_headers=headers, max_size=2**26) as socket_:
            assert any("permessage-deflate" in str(type(extension)).lower() or "deflate" in extension.name for extension in socket_.protocol.extensions)
            for size in (0, 16, 64, 256, 1024, 4096, 8192, 16384, 65536, 2**20):
                for message in ("ä" * size, os.urandom(size)):
                    await socket_.send(message)
                    assert await asyncio.wait_for(socket_.recv(), 30) == message
            await (await socket_.ping())
            await socket_.close(4321, "because")
            assert socket_.close_code == 4321

    asyncio.run(talk())


def test_hundreds_of_sockets_rest_and_work_afterwards(places):
    """The figure is in tests/bench; here it is only seen that they stay, and work afterwards."""
    wires = [connect(places["proxied"]) for _ in range(300)]
    time.sleep(1)
    for wire in wires:
        wire.sendall(frame(TEXT, b"still here"))
    for wire in wires:
        wire.settimeout(10)
        assert wire.recv(12) == frame(TEXT, b"still here", masked=False)
        wire.close()
