"""Traces: requests continue the trace of their client, apps and providers are told of it, a collector gets the spans."""
import http.server
import os

import pytest
import requests
from conftest import App
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from servers import Server, end, provider, serving, wait_for

BEGUN = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
UNRECORDED = "0af7651916cd43dd8448eb211c80319c"


class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        batch = ExportTraceServiceRequest()
        batch.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/traces"
        for resource in batch.resource_spans:
            assert {(one.key, one.value.string_value) for one in resource.resource.attributes} >= {("service.name", "valetkey")}
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    collector, app, signs_in = serving(Collector), serving(App), provider()
    collector.spans = []
    place = f"http://127.0.0.1:{collector.server_port}"
    # Fewer lines in the log do not mean fewer spans; nothing is recorded that nobody asked for.
    portal = Server(tmp_path_factory.mktemp("traces"), VALETKEY_TRACES_ENDPOINT=place, VALETKEY_TRACES_PERCENT="0", OTEL_BSP_SCHEDULE_DELAY="200")
    portal.start()
    portal.provider, portal.spans = signs_in, collector.spans
    portal.guid, portal.app_item, (portal.token,) = portal.connected(signs_in, f"http://127.0.0.1:{app.server_port}", "traced")
    yield portal
    if portal.process.poll() is None:
        end(portal.process)
    for server in (collector, app, signs_in):
        server.shutdown()


def attributes(span):
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def told_to_app(world, **headers):
    """The headers of Vera's request to the app, as the app got them."""
    answer = world.viewer("vera").http.get(world.app_item["content_url"], headers=headers).json()
    return {name.lower(): value for name, value in answer["headers"]}


def seen(world, trace, name):
    """The span of that name within a trace."""
    return wait_for(lambda: [span for span in world.spans if span.trace_id.hex() == trace and span.name == name], f"a span {name} of {trace}")[0]


def test_a_page_of_an_app_is_part_of_the_trace_that_its_client_began(world):
    told = told_to_app(world, tracestate="other=1", traceparent=f"00-{BEGUN}-{CALLER}-01")
    version, trace, parent, flags = told["traceparent"].split("-")
    assert (version, trace, flags, told["tracestate"]) == ("00", BEGUN, "01", "other=1")
    span = wait_for(lambda: [span for span in world.spans if span.span_id.hex() == parent], "the span that the app was told of")[0]
    assert span.trace_id.hex() == BEGUN and span.parent_span_id.hex() == CALLER
    known = attributes(span)
    assert known["http.request.method"] == "GET" and known["http.response.status_code"] == 200
    assert span.name == "GET content" and known["http.route"] == "content", "no address"


def test_the_handshake_of_a_socket_is_a_span(world):
    trace, http = os.urandom(16).hex(), world.viewer("vera").http
    url = http.get(world.app_item["content_url"]).url
    handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
                 "Origin": "/".join(url.split("/")[:3]), "traceparent": f"00-{trace}-{CALLER}-01"}
    # The app opens no sockets: it answers as to any other request.
    assert http.get(url, headers=handshake).status_code == 502
    known = attributes(seen(world, trace, "GET content"))
    assert known["http.route"] == "content" and known["http.response.status_code"] == 502


def test_an_exchange_that_refreshes_tells_the_provider(world):
    trace, before = os.urandom(16).hex(), len(world.provider.asked)

    # The access token has lived its second.
    def refreshed():
        answer = world.exchange(world.token, traceparent=f"00-{trace}-{CALLER}-01")
        assert answer.ok, answer.text
        return len(world.provider.asked) > before

    wait_for(refreshed, "a refresh")
    seen(world, trace, "POST /__api__/v1/oauth/integrations/credentials")
    told = world.provider.asked[-1]["traceparent"].split("-")
    span = seen(world, trace, "request to a provider")
    assert told == ["00", trace, span.span_id.hex(), "01"] and attributes(span)["server.address"] == "127.0.0.1"
    assert seen(world, trace, "refresh").span_id == span.parent_span_id


def test_what_is_not_to_be_recorded_is_passed_on_and_not_recorded(world):
    told = told_to_app(world, traceparent=f"00-{UNRECORDED}-{CALLER}-00")["traceparent"]
    assert told.startswith(f"00-{UNRECORDED}-") and told.endswith("-00") and CALLER not in told
    # A request without a trace begins one, of which nought in a hundred are recorded.
    assert told_to_app(world)["traceparent"].endswith("-00")
    # What is no trace is none.
    odd = told_to_app(world, traceparent="00-zz-1-01")["traceparent"]
    assert odd.endswith("-00") and "zz" not in odd


def test_a_collector_gets_no_secret_and_no_person_and_its_silence_delays_nobody(world):
    trace = os.urandom(16).hex()
    viewer = world.viewer("vera")
    viewer.http.get(f"{world['portal']}/people/nobody?secret=geheim", headers={"traceparent": f"00-{trace}-{CALLER}-01"})
    wait_for(lambda: [span for span in world.spans if span.trace_id.hex() == trace], "the span of a page")
    written = "".join(str(span) for span in world.spans)
    for secret in (world.token, "geheim", "vera", world.app_item["guid"], *(value for value in viewer.http.cookies.values() if len(value) > 8)):
        assert secret not in written, "a span names what it must not"
    end(world.process)
    assert world.process.returncode == 0
    last = os.urandom(16).hex()
    world.start()
    answer = requests.get(f"{world['portal']}/__ping__", headers={"traceparent": f"00-{last}-{CALLER}-01"})
    assert answer.ok
    # What waits is sent at the end.
    end(world.process)
    seen(world, last, "GET /__ping__")
