"""The demo's deployed app: who is looking, and which rows are theirs. Only the standard library."""
import html
import json
import os
import urllib.error
import urllib.parse
import urllib.request

# The demo's workspace stands on this machine, which an app reaches through the portal's proxy only.
way_out = urllib.request.build_opener(urllib.request.ProxyHandler({"http": os.environ.get("HTTP_PROXY", "")} if "HTTP_PROXY" in os.environ else {}))
portal = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def exchange(session_token):
    """The viewer's access token for the viewer's session token (RFC 8693)."""
    form = urllib.parse.urlencode({
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:posit:connect:user-session-token",
        "subject_token": session_token,
    }).encode()
    address = os.environ["CONNECT_SERVER"] + "__api__/v1/oauth/integrations/credentials"
    request = urllib.request.Request(address, form, {"Authorization": "Key " + os.environ["CONNECT_API_KEY"]})
    return json.load(portal.open(request, timeout=30))["access_token"]


def rows(access_token):
    statement = json.dumps({"statement": "SELECT region, amount, quarter FROM sales", "warehouse_id": "demo"}).encode()
    request = urllib.request.Request(os.environ["DATABRICKS_HOST"] + "/api/2.0/sql/statements", statement, {
        "Authorization": "Bearer " + access_token, "Content-Type": "application/json"})
    return json.load(way_out.open(request, timeout=30))["result"]["data_array"]


def app(environ, start_response):
    viewer = json.loads(environ.get("HTTP_RSTUDIO_CONNECT_CREDENTIALS", "{}")).get("user", "nobody")
    try:
        table = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows(exchange(environ.get("HTTP_POSIT_CONNECT_USER_SESSION_TOKEN", ""))))
        body = f"<table>{table}</table>"
    except urllib.error.HTTPError as error:
        body = f"<p>{html.escape(error.read().decode(errors='replace')[:500])}</p>"
    page = f"<!doctype html><html lang=en><title>Deployed sample</title><h1>Hello {html.escape(viewer)}</h1>{body}</html>"
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [page.encode()]
