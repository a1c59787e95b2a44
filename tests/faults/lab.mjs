// A laboratory: real nodes of the portal on a real database, behind one address, with a certified identity provider in strict
// rotation with reuse detection (a replayed refresh token revokes the whole grant), and hooks to make it slow, broken or deaf.
import { execFileSync, spawn } from "node:child_process";
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import Provider from "oidc-provider";

export const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
export const binary = process.env.TEST_BIN ?? join(root, "target/debug/valetkey");
export const PASSWORD = "laboratory-password";
const SECRET = "a-long-secret-of-the-laboratory";
const agent = new http.Agent({ keepAlive: true, maxSockets: 2000 });

export const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

async function free() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((done) => server.once("listening", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

/** One request to 127.0.0.1; the Host header is the caller's. Never rejects: a broken connection is status 0. */
export function call(port, method, path, { host, headers = {}, body, timeout = 30_000, signal } = {}, again = false) {
  return new Promise((done) => {
    const all = { ...headers, ...(host ? { host } : {}), ...(body === undefined ? {} : { "content-length": Buffer.byteLength(body) }) };
    const request = http.request({ host: "127.0.0.1", port, method, path, headers: all, agent, signal }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      const end = () => done({ status: response.complete ? response.statusCode : 0, headers: response.headers, body: Buffer.concat(chunks).toString() });
      response.on("end", end);
      response.on("error", end);
    });
    request.setTimeout(timeout, () => request.destroy());
    request.on("error", (error) => {
      // A connection that the server closed for idleness in this very moment: no answer of its, and worth another one.
      if (request.reusedSocket && error.code === "ECONNRESET" && !again) return done(call(port, method, path, { host, headers, body, timeout, signal }, true));
      done({ status: 0, headers: {}, body: String(error.code ?? error.name) });
    });
    request.end(body);
  });
}

/** A browser without script: cookies for each origin, redirects, forms. Every name leads to this machine. */
export class Browser {
  cookies = new Map();
  /** With nodes: each request to the portal goes to the next one. */
  constructor(nodes = null, front = 0) { this.nodes = nodes; this.front = String(front); this.turn = 0; }
  async go(url, method = "GET", body) {
    for (let hops = 0; hops < 15; hops++) {
      const at = new URL(url);
      const jar = this.cookies.get(at.host) ?? new Map();
      const headers = { accept: "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-fetch-site": "same-origin" };
      if (jar.size) headers.cookie = [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
      if (body !== undefined) headers["content-type"] = "application/x-www-form-urlencoded";
      const port = this.nodes && at.port === this.front ? this.nodes[this.turn++ % this.nodes.length].port : at.port;
      const answer = await call(port, method, at.pathname + at.search, { host: at.host, headers, body });
      for (const line of answer.headers["set-cookie"] ?? []) {
        const [pair] = line.split(";");
        jar.set(pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1));
      }
      this.cookies.set(at.host, jar);
      if (answer.status < 300 || answer.status > 399) return { ...answer, url: at.href };
      [url, method, body] = [new URL(answer.headers.location, at).href, "GET", undefined];
    }
    throw new Error(`too many redirects at ${url}`);
  }
  async submit(page, action, values = {}) {
    const form = page.body.split("<form ").slice(1).map((part) => part.split("</form>")[0]).find((part) => attribute(part, "action").endsWith(action));
    if (!form) throw new Error(`no form ${action} in ${page.status} ${page.url}: ${page.body.slice(0, 2000)}`);
    const pairs = new URLSearchParams(values);
    for (const input of form.split("<input ").slice(1).filter((input) => input.startsWith('type="hidden"'))) {
      if (!pairs.has(attribute(input, "name"))) pairs.set(attribute(input, "name"), attribute(input, "value"));
    }
    return this.go(new URL(attribute(form, "action"), page.url).href, "POST", pairs.toString());
  }
}
const attribute = (text, name) => (text.split(`${name}="`)[1] ?? "").split('"')[0].replaceAll("&#38;", "&").replaceAll("&amp;", "&").replaceAll("&#39;", "'").replaceAll("&#34;", '"');

/** Starts everything. `postgresql` is a server's address, or nothing for SQLite. */
export async function lab({ nodes = 1, postgresql, viewers = 1, env = {}, dataDir, privateKey = false, accessTokenSeconds = 3600 } = {}) {
  const folder = dataDir ?? mkdtempSync(join(tmpdir(), "valetkey-lab-"));
  const seen = { refreshes: 0, replays: 0, refused: 0, revocations: 0, uses: new Map() };
  const self = { seen, folder, viewers: [], nodes: [], token: async (pass) => pass(), front: await free() };

  // The provider, and in front of its token endpoint the hook.
  // Until the provider is set up: adding an integration asks its server for metadata.
  let handler = (_, response) => response.writeHead(503).end();
  const server = http.createServer((request, response) => handler(request, response)).listen(0, "127.0.0.1");
  await new Promise((done) => server.once("listening", done));
  const issuer = `http://127.0.0.1:${server.address().port}`;
  self.issuer = issuer;
  const guid = randomUUID();
  const options = {
    clients: [{ client_id: "lab", client_secret: SECRET, grant_types: ["authorization_code", "refresh_token"], redirect_uris: [`http://127.0.0.1:${self.front}/__oauth__/integrations/${guid}/callback`] }],
    features: { devInteractions: { enabled: false }, revocation: { enabled: true } },
    pkce: { required: () => true },
    rotateRefreshToken: true,
    issueRefreshToken: async () => true,
    ttl: { AccessToken: accessTokenSeconds, RefreshToken: 86400, Grant: 86400, Session: 86400, Interaction: 600, IdToken: 600 },
    findAccount: async (_, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  };
  const keys = privateKey && generateKeyPairSync("rsa", { modulusLength: 2048 });
  if (keys) {
    delete options.clients[0].client_secret;
    Object.assign(options.clients[0], { token_endpoint_auth_method: "private_key_jwt", jwks: { keys: [{ ...keys.publicKey.export({ format: "jwk" }), kid: "one" }] } });
  }
  const secret = keys ? keys.privateKey.export({ type: "pkcs8", format: "pem" }) : SECRET;
  let provider;
  const start = (redirect) => {
    options.clients[0].redirect_uris = [redirect];
    provider = new Provider(issuer, options);
    provider.on("server_error", (_, error) => console.error("provider:", error));
    provider.on("grant.success", (ctx) => { if (ctx.oidc.params.grant_type === "refresh_token") { seen.refreshes++; const id = ctx.oidc.account.accountId; seen.uses.set(id, (seen.uses.get(id) ?? 0) + 1); } });
    provider.on("grant.error", (ctx, error) => { if (ctx.oidc.params?.grant_type === "refresh_token") { seen.refused++; if (/already used/.test(error.error_detail ?? "")) seen.replays++; } });
    const callback = provider.callback();
    handler = async (request, response) => {
      if (request.url.startsWith("/token/revocation")) seen.revocations++;
      else if (request.url.startsWith("/token")) return tokenEndpoint(request, response, callback);
      if (!request.url.startsWith("/interaction/")) return callback(request, response);
      // Says yes to everything, as whoever is hinted at.
      const { params } = await provider.interactionDetails(request, response);
      const grant = new provider.Grant({ accountId: params.login_hint, clientId: "lab" });
      grant.addOIDCScope("openid offline_access");
      return provider.interactionFinished(request, response, { login: { accountId: params.login_hint }, consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: false });
    };
  };
  // The hook sees every refresh: it may wait, answer itself, cut the connection, or pass it on and hold the answer back.
  async function tokenEndpoint(request, response, callback) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const form = new URLSearchParams(body.toString());
    const replay = () => {
      const copy = http.request({ host: "127.0.0.1", port: new URL(inner).port, method: "POST", path: request.url, headers: request.headers }, () => {});
      return new Promise((done, failed) => {
        copy.on("response", (answer) => { const parts = []; answer.on("data", (part) => parts.push(part)); answer.on("end", () => done({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts) })); });
        copy.on("error", failed);
        copy.end(body);
      });
    };
    const pass = async () => { const answer = await replay(); if (!response.destroyed) response.writeHead(answer.status, answer.headers).end(answer.body); return answer; };
    if (form.get("grant_type") !== "refresh_token") return pass();
    return self.token(pass, { request, response, replay });
  }
  const behind = http.createServer((request, response) => provider.callback()(request, response)).listen(0, "127.0.0.1");
  await new Promise((done) => behind.once("listening", done));
  const inner = `http://127.0.0.1:${behind.address().port}`;

  // The app: says which session token it got.
  const app = http.createServer((request, response) => response.end(JSON.stringify({ token: request.headers["posit-connect-user-session-token"] }))).listen(0, "127.0.0.1");
  await new Promise((done) => app.once("listening", done));

  // One address for all nodes, a connection to each in turn.
  let turn = 0;
  const balancer = net.createServer((socket) => {
    const up = self.nodes.filter((node) => node.up);
    const node = up[turn++ % up.length];
    if (!node) return socket.destroy();
    const other = net.connect(node.port, "127.0.0.1");
    socket.pipe(other).pipe(socket);
    for (const end of [socket, other]) end.on("error", () => { socket.destroy(); other.destroy(); });
  }).listen(self.front, "127.0.0.1");
  await new Promise((done) => balancer.once("listening", done));

  // The database.
  let database = null;
  if (postgresql) {
    const name = `lab_${randomUUID().replaceAll("-", "")}`;
    execFileSync("psql", [postgresql, "-qc", `CREATE DATABASE ${name}`]);
    database = postgresql.replace(/\/[^/]*$/, `/${name}`);
  }
  self.database = database;
  /** Looks into the database, or changes it behind the portal's back. */
  self.sql = (text) => {
    // An update of many rows can meet one of the portal's in the opposite order.
    for (let tries = 5; database; tries--) {
      try {
        return execFileSync("psql", [database, "-qAt", "-v", "ON_ERROR_STOP=1", "-c", text], { stdio: ["ignore", "pipe", "pipe"] }).toString().trim().split("\n").filter(Boolean);
      } catch (error) {
        if (!tries || !/deadlock/.test(error.stderr)) throw error;
      }
    }
    const script = "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1],timeout=20)\nfor r in c.execute(sys.argv[2]).fetchall(): print('|'.join('' if v is None else str(v) for v in r))\nc.commit()";
    return execFileSync("python3", ["-c", script, join(self.nodes[0].folder, "valetkey.db"), text]).toString().trim().split("\n").filter(Boolean);
  };
  /** Lets every access token end now. */
  self.expire = () => {
    self.sql("UPDATE connections SET access_expires_at = 1000, updated_at = 500");
    self.sql("INSERT INTO changes (process, subjects) VALUES ('test', 'everything')");
    return sleep(350);
  };

  const settings = (node) => ({
    PATH: process.env.PATH,
    VALETKEY_LISTEN: `127.0.0.1:${node.port}`,
    VALETKEY_PUBLIC_URL: `http://127.0.0.1:${self.front}`,
    VALETKEY_DATA_DIR: node.folder,
    VALETKEY_KEYRING_FILE: join(folder, "keyring"),
    VALETKEY_PRIVATE_HOSTS: "127.0.0.1",
    VALETKEY_LOG: process.env.VALETKEY_LOG ?? "warn",
    ...(database ? { VALETKEY_DATABASE_URL: database } : {}),
    ...env,
  });
  self.run = (node, args, input) => execFileSync(binary, args, { env: settings(node), input, stdio: ["pipe", "pipe", "pipe"] }).toString();
  /** Starts a node's process; resolves when it answers. */
  self.start = async (node, extra = {}) => {
    const log = openSync(join(node.folder, "log"), "a");
    node.child = spawn(binary, ["serve"], { env: { ...settings(node), ...node.env, ...extra }, stdio: ["ignore", "ignore", log] });
    node.exited = new Promise((done) => node.child.once("exit", (code, signal) => { node.up = false; done({ code, signal }); }));
    for (let tries = 0; tries < 400; tries++) {
      if ((await call(node.port, "GET", "/__ping__", { timeout: 2000 })).status === 200) { node.up = true; return; }
      if (node.child.exitCode !== null) break;
      await sleep(50);
    }
    throw new Error(`a node does not answer: ${readFileSync(join(node.folder, "log")).toString().slice(-2000)}`);
  };
  self.kill = async (node, signal = "SIGKILL") => { node.child.kill(signal); return node.exited; };
  self.log = (node) => readFileSync(join(node.folder, "log")).toString();

  for (let number = 0; number < nodes; number++) {
    const node = { port: await free(), folder: join(folder, `node${number}`), up: false, env: {} };
    if (!existsSync(node.folder)) mkdirSync(node.folder);
    self.nodes.push(node);
  }
  self.adaKey = self.run(self.nodes[0], ["admin", "create", "ada", "--password-stdin", "--api-key"], `${PASSWORD}\n`).trim();
  for (const node of self.nodes) await self.start(node);
  const host = `127.0.0.1:${self.front}`;
  self.api = async (method, path, body, port = self.front) => {
    const answer = await call(port, method, `/__api__/v1/${path}`, { host, headers: { authorization: `Key ${self.adaKey}`, "content-type": "application/json" }, body: body === undefined ? undefined : JSON.stringify(body) });
    return { ...answer, json: () => JSON.parse(answer.body) };
  };
  const must = async (...request) => { const answer = await self.api(...request); if (answer.status >= 300) throw new Error(`${request.slice(0, 2)}: ${answer.status} ${answer.body}`); return answer; };
  const made = (await must("POST", "oauth/integrations", { name: "Certified", template: "custom", config: {
    client_id: "lab", client_secret: secret, authorization_uri: `${issuer}/auth`, token_uri: `${issuer}/token`, revocation_uri: `${issuer}/token/revocation`,
    scopes: "openid offline_access", token_endpoint_auth_method: keys ? "private_key_jwt" : "client_secret_basic" } })).json();
  self.integration = made.guid;
  self.secret = secret;
  start(`http://127.0.0.1:${self.front}/__oauth__/integrations/${made.guid}/callback`);
  const item = (await must("POST", "content", { name: "lab", access_type: "logged_in", upstream_url: `http://127.0.0.1:${app.address().port}` })).json();
  self.content = item.guid;
  await must("PUT", `content/${item.guid}/oauth/integrations/associations`, [{ oauth_integration_guid: made.guid }]);

  /** A viewer who is connected, with the session token that the app saw. */
  self.connect = async (viewer) => {
    const page = await viewer.browser.go(`http://127.0.0.1:${self.front}/content/${self.content}/`);
    const done = page.body.startsWith("{") ? page : await viewer.browser.submit(page, "/consents/new");
    if (!done.body.startsWith("{")) throw new Error(`not connected: ${done.status} ${done.url} ${done.body.slice(0, 3000)}`);
    viewer.token = JSON.parse(done.body).token;
  };
  for (let number = 0; number < viewers; number++) {
    const name = `viewer${number}`;
    await must("POST", "users", { username: name, email: `${name}@example.org`, password: PASSWORD, user_role: "viewer" });
    const viewer = { name, browser: new Browser() };
    const login = await viewer.browser.go(`http://${host}/login`);
    await viewer.browser.submit(login, "/login", { username: name, password: PASSWORD });
    await self.connect(viewer);
    self.viewers.push(viewer);
  }
  /** One exchange at one node, or at the common address. */
  self.exchange = async (viewer, node, options = {}) => {
    const body = new URLSearchParams({ grant_type: "urn:ietf:params:oauth:grant-type:token-exchange", subject_token_type: "urn:posit:connect:user-session-token", subject_token: viewer.token }).toString();
    const answer = await call(node?.port ?? self.front, "POST", "/__api__/v1/oauth/integrations/credentials", {
      host, headers: { authorization: `Key ${self.adaKey}`, "content-type": "application/x-www-form-urlencoded" }, body, ...options });
    let parsed = {};
    try { parsed = JSON.parse(answer.body); } catch { /* a broken answer has no JSON */ }
    return { ...answer, ...parsed, cause: parsed.payload?.cause };
  };
  self.stop = async () => {
    for (const node of self.nodes) if (node.up) { node.child.kill("SIGCONT"); await self.kill(node, "SIGKILL"); }
    for (const each of [server, behind, app, balancer]) { each.close(); each.closeAllConnections?.(); }
    if (database) execFileSync("psql", [postgresql, "-qc", `DROP DATABASE ${database.replace(/.*\//, "")} WITH (FORCE)`]);
    if (!process.env.KEEP && !dataDir) rmSync(folder, { recursive: true, force: true });
  };
  return self;
}
