"""Unmodified posit-sdk, databricks-sdk and rsconnect-python against the portal."""
import subprocess
import sys

import pytest
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config
from posit.connect import Client
from posit.connect.errors import ClientError
from posit.connect.external.databricks import ConnectStrategy


@pytest.fixture(scope="session")
def dashboard(demo, app):
    """A content item and an integration, made by a publisher and an administrator through the SDK."""
    administrator = Client(demo["portal"], demo.account("ada")["api_key"])
    registration = demo["registration"]
    integration = administrator.oauth.integrations.create(
        name="From the SDK",
        description="d",
        template="azure",
        config={
            "tenant_id": registration["tenant_id"],
            "client_id": registration["client_id"],
            "client_secret": registration["client_secret"],
            "authority_host": registration["authority_host"],
            "scopes": "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default offline_access",
        },
    )
    publisher = Client(demo["portal"], demo.account("bo")["api_key"])
    content = publisher.content.create(name="from-the-sdk", title="From the SDK", access_type="logged_in", upstream_url=app)
    content.oauth.associations.update(integration["guid"])
    assert [entry["oauth_integration_guid"] for entry in content.oauth.associations.find()] == [integration["guid"]]
    return publisher, content, integration


def token(viewer, content, name):
    page = viewer(name).open(content["content_url"])
    headers = {key.lower(): value for key, value in page.json()["headers"]}
    return headers["posit-connect-user-session-token"]


def test_an_integration_is_the_same_in_create_get_and_list(demo):
    client = Client(demo["portal"], demo.account("ada")["api_key"])
    config = {"auth_mode": "Confidential", "authorization_uri": "https://example.com/a", "client_id": "c", "client_secret": "s",
              "scopes": "a b c", "token_endpoint_auth_method": "client_secret_post", "token_uri": "https://example.com/t"}
    made = client.oauth.integrations.create(name="n", description="", template="custom", config=config)
    assert made["config"] == {**{key: value for key, value in config.items() if key != "client_secret"}, "auth_type": "Viewer", "use_pkce": True}
    assert made["description"] == ""
    assert dict(client.oauth.integrations.get(made["guid"])) == dict(made)
    assert dict(made) in [dict(entry) for entry in client.oauth.integrations.find()]
    made.update(name="m")
    assert client.oauth.integrations.get(made["guid"])["name"] == "m"
    made.delete()
    with pytest.raises(ClientError) as refused:
        client.oauth.integrations.get(made["guid"])
    assert refused.value.error_code == 4


def test_two_viewers_are_themselves_at_databricks(demo, viewer, dashboard):
    publisher, content, _ = dashboard
    for name in ("vera", "viktor"):
        strategy = ConnectStrategy(client=publisher, user_session_token=token(viewer, content, name))
        workspace = WorkspaceClient(config=Config(host=demo["workspace"], credentials_strategy=strategy))
        assert workspace.current_user.me().user_name == f"{name}@example.org"


def test_after_a_revoke_the_very_next_exchange_is_refused(demo, viewer, dashboard):
    publisher, content, _ = dashboard
    subject = token(viewer, content, "vera")
    assert publisher.oauth.get_credentials(subject)["token_type"] == "Bearer"
    vera = Client(demo["portal"], demo.account("vera")["api_key"])
    for session in vera.oauth.sessions.find():
        if session["oauth_integration_guid"] == dashboard[2]["guid"]:
            session.delete()
    with pytest.raises(ClientError) as refused:
        publisher.oauth.get_credentials(subject)
    assert (refused.value.http_status, refused.value.error_code) == (400, 220)
    assert refused.value.payload["login_url"].startswith(demo["portal"])
    # Signing in again makes the same token work again.
    viewer("vera").open(content["content_url"])
    assert publisher.oauth.get_credentials(subject)["access_token"]


def test_content_without_an_integration_answers_212(demo, viewer, app):
    publisher = Client(demo["portal"], demo.account("bo")["api_key"])
    content = publisher.content.create(name="alone", access_type="logged_in", upstream_url=app)
    with pytest.raises(ClientError) as refused:
        publisher.oauth.get_credentials(token(viewer, content, "vera"))
    assert refused.value.error_code == 212
    content.delete()


def test_headers_cannot_be_forged_and_cookies_do_not_leak(demo, viewer, dashboard):
    _, content, _ = dashboard
    vera = viewer("vera")
    vera.open(content["content_url"])
    forged = {"Posit-Connect-User-Session-Token": "forged", "posit_connect_user_session_token": "forged", "X-Forwarded-For": "6.6.6.6",
              "RStudio-Connect-Credentials": '{"user": "forged"}', "X-Kept": "yes"}
    # A key is sent on purpose, so it decides: the cookies do not stand in for it.
    assert vera.http.get(content["content_url"], headers={"Authorization": "Key forged"}).status_code == 401
    answer = vera.http.get(content["content_url"] + "deep/path?q=1", headers=forged)
    seen = answer.json()
    values = {key.lower().replace("_", "-"): value for key, value in seen["headers"]}
    assert seen["path"] == "/deep/path?q=1"
    assert "forged" not in str(seen) and "6.6.6.6" not in str(seen)
    assert sum(key.lower().replace("_", "-") == "posit-connect-user-session-token" for key, _ in seen["headers"]) == 1
    assert values["x-kept"] == "yes" and "valetkey" not in values.get("cookie", "")
    assert values["host"] == requests.utils.urlparse(answer.url).netloc != requests.utils.urlparse(demo["portal"]).netloc
    cookies = answer.raw.headers.getlist("Set-Cookie")
    assert [cookie.split(";")[0] for cookie in cookies] == ["app=1"] and "Domain" not in cookies[0]
    assert "Clear-Site-Data" not in answer.headers


def test_the_seed_example_works_as_printed(demo):
    registration = demo["registration"]
    body = ('{"client_id": "%s", "client_secret": "s3cret", "tenant_id": "%s", "description": "d", '
            '"default_scopes": ["2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default", "offline_access"]}') % (registration["client_id"], registration["tenant_id"])
    printed = subprocess.run(["curl", "-s", "-H", demo.key("ada")["Authorization"].join(["Authorization: ", ""]), "-XPOST", demo.api("v1/oauth/integrations"), "--data", body],
                             capture_output=True, text=True, check=True).stdout
    import json
    made = json.loads(printed)
    assert made["template"] == "azure" and made["config"]["scopes"].endswith("offline_access") and "client_secret" not in printed
    assert requests.delete(demo.api(f"v1/oauth/integrations/{made['guid']}"), headers=demo.key("ada")).status_code == 204


def test_rsconnect_lists_and_edits_integrations(demo):
    base = [sys.executable.replace("python3", "rsconnect").replace("/python", "/rsconnect"), "integration"]
    options = ["--server", demo["portal"], "--api-key", demo.account("ada")["api_key"]]
    shown = subprocess.run([*base, "list", *options], capture_output=True, text=True)
    assert shown.returncode == 0 and demo["integrations"][0]["guid"] in shown.stdout, shown.stdout + shown.stderr
