// A certified identity provider that none of us wrote: code + PKCE, strict rotation with reuse detection, revocation.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import Provider from "oidc-provider";
import { browser, demo, signIn } from "./harness.mjs";

let here, chromium, server, issuer, content, integration;
// Seconds that an access token lives. The portal refreshes one after half of that, and a quarter earlier if it is asked for.
const LIFETIME = 24;
const seen = { refreshes: 0, revocations: 0, replays: 0 };
const key = (name) => ({ Authorization: `Key ${here.accounts.find((account) => account.username === name).api_key}` });
const api = (name, path, method = "GET", body) => fetch(`${here.portal}/__api__/v1/${path}`, { method, headers: key(name), body: body && JSON.stringify(body) });

before(async () => {
  [here, chromium] = await Promise.all([demo(), browser()]);
  // Until the provider is set up: adding an integration asks its server for metadata.
  let handler = (_, response) => response.writeHead(503).end();
  server = createServer((request, response) => handler(request, response));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  issuer = `http://127.0.0.1:${server.address().port}`;
  const app = createServer((request, response) => response.end(JSON.stringify({ token: request.headers["posit-connect-user-session-token"] })));
  await new Promise((done) => app.listen(0, "127.0.0.1", done));
  app.unref();
  // The callback is known only once the integration has its identifier.
  const made = await api("ada", "oauth/integrations", "POST", { name: "Certified", template: "custom", config: {
    client_id: "valetkey", client_secret: "a-long-secret-of-the-test", authorization_uri: `${issuer}/auth`, token_uri: `${issuer}/token`, revocation_uri: `${issuer}/token/revocation`,
    scopes: "openid offline_access", token_endpoint_auth_method: "client_secret_basic" } });
  integration = await made.json();
  assert.equal(made.status, 200, JSON.stringify(integration));
  const provider = new Provider(issuer, {
    clients: [{ client_id: "valetkey", client_secret: "a-long-secret-of-the-test", grant_types: ["authorization_code", "refresh_token"], redirect_uris: [`${here.portal}/__oauth__/integrations/${integration.guid}/callback`] }],
    features: { devInteractions: { enabled: false }, revocation: { enabled: true } },
    pkce: { required: () => true },
    rotateRefreshToken: true,
    issueRefreshToken: async () => true,
    ttl: { AccessToken: LIFETIME, RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 600, IdToken: 600 },
    findAccount: async (_, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  });
  provider.on("server_error", (_, error) => console.error(error));
  provider.on("grant.success", (ctx) => { if (ctx.oidc.params.grant_type === "refresh_token") seen.refreshes++; });
  provider.on("grant.error", (ctx) => { if (ctx.oidc.params.grant_type === "refresh_token") seen.replays++; });
  const callback = provider.callback();
  handler = async (request, response) => {
    if (request.url.startsWith("/token/revocation")) seen.revocations++;
    if (!request.url.startsWith("/interaction/")) return callback(request, response);
    // Plain: says yes to everything, as vera.
    const details = await provider.interactionDetails(request, response);
    const grant = new provider.Grant({ accountId: "vera@example.org", clientId: "valetkey" });
    grant.addOIDCScope("openid offline_access");
    const result = { login: { accountId: "vera@example.org" }, consent: { grantId: await grant.save() } };
    return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  };
  content = await (await api("bo", "content", "POST", { name: "certified", access_type: "logged_in", upstream_url: `http://127.0.0.1:${app.address().port}` })).json();
  assert.equal((await api("bo", `content/${content.guid}/oauth/integrations/associations`, "PUT", [{ oauth_integration_guid: integration.guid }])).status, 204);
});
after(async () => {
  server?.close();
  server?.closeAllConnections();
  await chromium?.close();
  await here?.stop();
});

const exchange = async (token) => {
  const body = new URLSearchParams({ grant_type: "urn:ietf:params:oauth:grant-type:token-exchange", subject_token_type: "urn:posit:connect:user-session-token", subject_token: token });
  const answer = await fetch(`${here.portal}/__api__/v1/oauth/integrations/credentials`, { method: "POST", headers: key("bo"), body });
  return { status: answer.status, ...(await answer.json()) };
};

test("a certified provider with strict rotation: connect, refresh once for many, revoke upstream", async () => {
  const page = await (await chromium.newContext()).newPage();
  await signIn(page, here.portal, "vera", "valetkey-demo");
  await page.goto(content.content_url);
  await page.click("text=Continue to 127.0.0.1");
  await page.waitForURL((url) => url.pathname === new URL(content.content_url).pathname && url.origin !== here.portal);
  const { token } = JSON.parse(await page.textContent("body"));
  const first = await exchange(token);
  assert.equal(first.status, 200, JSON.stringify(first));
  for (let round = 0; round < 2; round++) {
    await new Promise((done) => setTimeout(done, (LIFETIME / 2 + 0.2) * 1000));
    // The portal also refreshes by itself between bursts, so only what happens during one is counted. (The fault harness
    // counts to the last one, with tokens that end.)
    const before = seen.refreshes;
    const answers = await Promise.all(Array.from({ length: 30 }, () => exchange(token)));
    assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [200]);
    const during = seen.refreshes - before;
    assert.ok(during <= 1, `${during} refreshes for one burst`);
    assert.ok(new Set(answers.map((answer) => answer.access_token)).size <= 1 + during);
  }
  assert.ok(seen.refreshes >= 2, `${seen.refreshes} refreshes in two lifetimes`);
  assert.equal(seen.replays, 0);
  await page.goto(`${here.portal}/consents`);
  await page.click("a:has-text('Disconnect')");
  await page.click("button.destructive");
  const refused = await exchange(token);
  assert.equal(refused.code, 220);
  for (let tries = 0; seen.revocations === 0 && tries < 50; tries++) await new Promise((done) => setTimeout(done, 100));
  assert.equal(seen.revocations, 1);
});
