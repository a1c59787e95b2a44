// Signing in with the organisation at a certified OpenID provider that none of us wrote, on a server set up by its settings.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import Provider from "oidc-provider";
import { binary, browser, look } from "./harness.mjs";

let chromium, server, portal, child, asked = [];
const folder = mkdtempSync(join(tmpdir(), "valetkey-organisation-"));
const listening = async (server) => {
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return server.address().port;
};

before(async () => {
  chromium = await browser();
  // Until the provider is set up: adding an integration asks its server for metadata.
  let handler = (_, response) => response.writeHead(503).end();
  server = createServer((request, response) => handler(request, response));
  const issuer = `http://127.0.0.1:${await listening(server)}`;
  const free = createServer();
  const port = await listening(free);
  await new Promise((done) => free.close(done));
  portal = `http://127.0.0.1:${port}`;
  const people = { nora: { name: "Nora Falk", preferred_username: "nora@example.org", roles: ["Portal.Admin"], groups: ["g-1"] } };
  const provider = new Provider(issuer, {
    clients: [{ client_id: "portal", client_secret: "a-long-secret-of-the-test", grant_types: ["authorization_code"], redirect_uris: [`${portal}/login/organisation/callback`] }],
    features: { devInteractions: { enabled: false } },
    pkce: { required: () => true },
    conformIdTokenClaims: false,
    claims: { openid: ["sub", "roles", "groups"], profile: ["name", "preferred_username"] },
    ttl: { AccessToken: 600, Grant: 600, Session: 600, Interaction: 600, IdToken: 600 },
    findAccount: async (_, id) => ({ accountId: id, claims: async () => ({ sub: id, ...people[id] }) }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  });
  provider.on("server_error", (_, error) => console.error(error));
  const callback = provider.callback();
  handler = async (request, response) => {
    if (!request.url.startsWith("/interaction/")) return callback(request, response);
    const details = await provider.interactionDetails(request, response);
    asked.push(details.params);
    const grant = new provider.Grant({ accountId: "nora", clientId: "portal" });
    grant.addOIDCScope("openid profile email");
    return provider.interactionFinished(request, response, { login: { accountId: "nora" }, consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: false });
  };
  child = spawn(binary, ["serve"], { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env,
    VALETKEY_LISTEN: `127.0.0.1:${port}`, VALETKEY_PUBLIC_URL: portal, VALETKEY_DATA_DIR: folder, VALETKEY_PRIVATE_HOSTS: "127.0.0.1", VALETKEY_LOCAL_SIGN_IN: "false",
    VALETKEY_SIGN_IN_ISSUER: issuer, VALETKEY_SIGN_IN_CLIENT_ID: "portal", VALETKEY_SIGN_IN_CLIENT_SECRET: "a-long-secret-of-the-test", VALETKEY_SIGN_IN_NAME: "Example Organisation",
    VALETKEY_SIGN_IN_SCOPES: "openid profile", VALETKEY_SIGN_IN_ROLES: "Portal.Admin=administrator", VALETKEY_SIGN_IN_DEFAULT_ROLE: "none", VALETKEY_SIGN_IN_GROUPS: "g-1=Sales team" } });
  let log = "";
  child.stderr.on("data", (chunk) => (log += chunk));
  for (let tries = 0; ; tries++) {
    if (await fetch(`${portal}/__ping__`).then((answer) => answer.ok, () => false)) break;
    assert.ok(tries < 100 && child.exitCode === null, log);
    await new Promise((done) => setTimeout(done, 100));
  }
});
after(async () => {
  await chromium?.close();
  child?.kill("SIGTERM");
  server?.close();
  server?.closeAllConnections();
  rmSync(folder, { recursive: true, force: true });
});

test("the organisation's provider signs people in, and confirms that it is still them", async () => {
  const page = await (await chromium.newContext()).newPage();
  await page.goto(`${portal}/account`);
  await look(page, "login-organisation");
  assert.equal(await page.locator("input[type=password]").count(), 0, "passwords are off");
  await page.click("text=Sign in with Example Organisation");
  await page.waitForURL(`${portal}/account`);
  assert.match(await page.textContent("main"), /Nora Falk, administrator/);
  await look(page, "account-organisation");
  assert.equal(asked.length, 1);
  assert.equal(asked[0].code_challenge_method, "S256");
  assert.ok(asked[0].nonce.length >= 43 && asked[0].state.length >= 43);
  await page.goto(`${portal}/login/organisation?again=yes&next=/account/keys`);
  await page.waitForURL(`${portal}/account/keys`);
  assert.deepEqual([asked.length, asked[1].prompt], [2, "login"], "the provider has asked once more");
  await page.goto(`${portal}/groups`);
  assert.match(await page.textContent("main"), /Sales team/);
});
