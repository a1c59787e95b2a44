// Starts the demo and a headless Chromium; collects axe-core's findings and screenshots of every page looked at.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
export const root = join(here, "../..");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
export const pictures = join(root, "target/pictures");
mkdirSync(pictures, { recursive: true });

/** The Python that has the apps' packages. */
const venv = join(root, "tests/.venv/bin/python");
export const python = process.env.PYTHON || (existsSync(venv) ? venv : "python3");

export const binary = process.env.TEST_BIN ?? join(root, "target/debug/valetkey");

/** Runs `valetkey demo --json` on a free port; `stop` ends it. */
export async function demo() {
  const child = spawn(binary, ["demo", "--json", "--listen", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stderr.on("data", (chunk) => (log += chunk));
  const line = await new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", resolve);
    child.once("exit", (code) => reject(new Error(`the demo ended with ${code}: ${log}`)));
  });
  return { ...JSON.parse(line), log: () => log, stop: () => new Promise((done) => { child.once("exit", done); child.kill("SIGTERM"); }) };
}

export function browser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

/** Looks at a page as axe-core and as a photographer; throws on any violation. */
export async function look(page, name, { scripted = true } = {}) {
  await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
  if (!scripted) return;
  // Through the debugger, since the page's own policy rightly refuses foreign script.
  const found = await page.evaluate(`(async () => { ${axe}; const found = await axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }); return found.violations.map((v) => v.id + ": " + v.nodes.map((n) => n.html.slice(0, 160) + " " + (n.any[0]?.message ?? "")).join(" | ")); })()`);
  if (found.length) throw new Error(`${name}: ${found.join("\n")}`);
}

/** The password of everybody in the demo, at the portal and at its provider. */
export const PASSWORD = "valetkey-demo";

export async function signIn(page, base, username, password) {
  await page.goto(`${base}/login`);
  await page.fill("#username", username);
  await page.fill("#password", password);
  await page.click("text=Sign in >> visible=true >> nth=-1");
}

/** A page in a browser of its own, signed in to the portal at `base`; signed in as nobody without a name. */
export async function person(chromium, base, name, options = {}) {
  const context = await chromium.newContext({ viewport: { width: 1180, height: 820 }, ...options });
  context.setDefaultTimeout(15000);
  const page = await context.newPage();
  if (name) await signIn(page, base, name, PASSWORD);
  return page;
}

/** Agrees to the portal's consent page, and signs in at the demo's provider where that asks. The page may close itself. */
export async function agree(page) {
  await page.click("form .primary");
  // A click does not wait for the answer.
  await page.waitForURL((url) => !url.pathname.startsWith("/consents/new"), { waitUntil: "commit" }).catch((error) => {
    if (!page.isClosed()) throw error;
  });
  if (page.isClosed() || !page.url().includes("oauth2")) return;
  await page.fill("#password", PASSWORD);
  await page.click("#signin");
  await page.click("#accept");
}

/** Signs in at the demo's provider, which may then ask for a consent of its own. */
export async function providerSignIn(page, name) {
  await page.waitForURL(/oauth2\/v2\.0/);
  await page.fill("#username", `${name}@example.org`);
  await page.fill("#password", PASSWORD);
  await page.click("#signin");
}
