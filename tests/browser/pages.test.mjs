// What pages say first (whether it works), safe actions, requests for access, plots, imports, and the frame around all pages: with
// and without script, wide and narrow, light and dark.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { browser, demo, look, person as signedIn, providerSignIn } from "./harness.mjs";

const NARROW = { javaScriptEnabled: false, viewport: { width: 360, height: 740 }, colorScheme: "dark" };
let here, chromium;

before(async () => {
  [here, chromium] = await Promise.all([demo(), browser()]);
});
after(async () => {
  await chromium?.close();
  await here?.stop();
});

const person = (name, options = {}) => signedIn(chromium, here.portal, name, { viewport: { width: 1280, height: 820 }, ...options });

/** Looks at an address as a reader with script and as one without, on a narrow dark screen. */
async function both(page, narrow, name, path) {
  await page.goto(`${here.portal}${path}`);
  await look(page, name);
  await narrow.goto(`${here.portal}${path}`);
  await look(narrow, `${name}-narrow-dark`, { scripted: false });
  const width = await narrow.evaluate(() => document.documentElement.scrollWidth).catch(() => 360);
  assert.ok(width <= 360, `${path} is ${width} px wide on a narrow screen`);
}

test("an item and an integration say first whether they work, and show it in plots", async () => {
  const vera = await person("vera");
  await vera.goto(here.content[0].url);
  await vera.click("text=Continue to Microsoft");
  await providerSignIn(vera, "vera");
  if (await vera.$("#accept")) await vera.click("#accept");
  await vera.waitForSelector("#rows");
  const bo = await person("bo"), narrowBo = await person("bo", NARROW), base = `/content-settings/${here.content[0].guid}`;
  await both(bo, narrowBo, "health-content", base);
  assert.match(await bo.textContent(".health"), /Works\s*1 exchange in the last 24 hours/);
  await both(bo, narrowBo, "health-content-consents", `${base}/consents`);
  assert.match(await bo.textContent("tbody"), /Vera/);
  await both(bo, narrowBo, "health-content-activity", `${base}/activity`);
  assert.match(await bo.textContent("main"), /1 exchange in the last 24 hours; most \(1\) at/);
  assert.match(await bo.textContent("main"), /Asked 1 time in the last 24 hours; 1 ended with a connection/);
  assert.match(await bo.locator(".plot-area path").getAttribute("d"), /^M230 100v-100h8v100z$/);
  await bo.click("text=Last 30 days");
  assert.match(await bo.textContent("main"), /in the last 30 days/);
  const ada = await person("ada"), narrowAda = await person("ada", NARROW), integration = `/integrations/${here.integrations[0].guid}`;
  await both(ada, narrowAda, "health-integration", integration);
  await both(ada, narrowAda, "health-integration-connected", `${integration}/connected`);
  assert.match(await ada.textContent("tbody"), /vera@example\.org/);
  await both(ada, narrowAda, "health-integration-activity", `${integration}/activity?range=year`);
  await vera.goto(`${here.portal}/consents`);
  await vera.click("text=1 time");
  assert.match(await vera.textContent("main"), /1 use in the last 24 hours/);
  await look(vera, "health-consent-uses");
  for (const page of [vera, bo, narrowBo, ada, narrowAda]) await page.context().close();
});

test("a paused integration asks nobody, and goes on where it was", async () => {
  const ada = await person("ada"), viktor = await person("viktor"), integration = `${here.portal}/integrations/${here.integrations[0].guid}`;
  await ada.goto(integration);
  await ada.click("button:has-text('Pause')");
  assert.match(await ada.textContent("main"), /at once get no more tokens/);
  await look(ada, "pause-question");
  await ada.click("button.destructive");
  assert.match(await ada.textContent(".flash"), /hands out no tokens until you resume/);
  await viktor.goto(here.content[0].url);
  assert.match(await viktor.textContent("h1"), /Azure Databricks is paused/);
  await look(viktor, "paused-consent");
  assert.ok(await viktor.$(".nav a:has-text('Consents')"), "error pages keep the navigation");
  assert.ok(await viktor.$("a:has-text('Try again')"));
  await ada.goto(integration);
  await ada.click("button:has-text('Resume')");
  await viktor.click("a:has-text('Try again')");
  assert.match(await viktor.textContent("h1"), /Let “Sales dashboard” use/);
  await look(viktor, "consent-with-details");
  // With the keyboard alone: from the top of the page to the provider.
  await viktor.goto(here.content[0].url);
  for (let tabs = 0; tabs < 20 && !(await viktor.evaluate(() => document.activeElement.matches("button.primary"))); tabs++) await viktor.keyboard.press("Tab");
  await viktor.keyboard.press("Enter");
  await viktor.waitForURL(/oauth2\/v2\.0/);
  // The button is seen without scrolling on a small phone.
  const small = await person("viktor", { viewport: { width: 360, height: 740 } });
  await small.goto(here.content[0].url);
  const box = await small.locator("form .primary").boundingBox();
  assert.ok(box.y + box.height <= 740, `the button ends at ${box.y + box.height} px`);
  for (const page of [ada, viktor, small]) await page.context().close();
});

test("a secret is replaced by itself, and survives an error in another field", async () => {
  const ada = await person("ada"), integration = `${here.portal}/integrations/${here.integrations[0].guid}`;
  await ada.goto(integration);
  await ada.click("text=Replace secret");
  await ada.fill("#secret_expires", "2020-01-01");
  await ada.click("button.primary");
  assert.match(await ada.textContent(".summary"), /in the past[\s\S]*Enter the new secret/);
  await look(ada, "secret-replace");
  // The date is past again: the secret is kept all the same.
  await ada.fill("#client_secret", here.registration.client_secret);
  await ada.click("button.primary");
  assert.match(await ada.textContent("main"), /Entered, not saved yet/);
  await ada.fill("#secret_expires", "");
  await ada.click("button.primary");
  assert.match(await ada.textContent(".flash"), /Replaced the secret/);
  await ada.goto(`${here.portal}/integrations/new?template=azure`);
  await ada.fill("#name", "Second");
  await ada.fill("#tenant_id", "nonsense");
  await ada.fill("#client_id", `{${here.registration.client_id.toUpperCase()}}`);
  await ada.fill("#client_secret", here.registration.client_secret);
  await ada.click("text=Save integration");
  assert.match(await ada.textContent("main"), /Entered, not saved yet/);
  assert.equal(await ada.inputValue("#client_secret"), "");
  assert.ok(!(await ada.content()).includes(here.registration.client_secret));
  await look(ada, "secret-kept");
  await ada.fill("#tenant_id", here.registration.tenant_id);
  await ada.click("text=Set for you by the template");
  await ada.fill("#authority_host", here.registration.authority_host);
  await ada.click("text=Save integration");
  assert.match(await ada.textContent(".flash"), /Saved Second/);
  assert.match(await ada.textContent("main"), /Not used yet/);
  // The same name again is asked about.
  await ada.goto(`${here.portal}/integrations/new?template=azure`);
  await ada.fill("#name", "second");
  await ada.fill("#tenant_id", here.registration.tenant_id);
  await ada.fill("#client_id", here.registration.client_id);
  await ada.fill("#client_secret", here.registration.client_secret);
  await ada.click("text=Save integration");
  assert.match(await ada.textContent(".summary"), /There is an integration called second already/);
  await look(ada, "same-name");
  await ada.context().close();
});

test("of two edits at the same time the second one is shown what changed", async () => {
  const [one, two] = [await person("bo"), await person("bo")], address = `${here.portal}/content-settings/${here.content[1].guid}`;
  for (const page of [one, two]) await page.goto(address);
  await one.fill("#description", "By the first.");
  await one.click("text=Save settings");
  assert.match(await one.textContent(".flash"), /Saved/);
  await two.fill("#description", "By the second.");
  await two.click("text=Save settings");
  assert.match(await two.textContent(".summary"), /Somebody else changed this content item meanwhile[\s\S]*“By the first\.”/);
  assert.equal(await two.inputValue("#description"), "By the second.");
  await look(two, "edited-meanwhile");
  await two.click("text=Save settings");
  assert.match(await two.textContent(".flash"), /Saved/);
  const [ada, other] = [await person("ada"), await person("ada")], integration = `${here.portal}/integrations/${here.integrations[0].guid}/edit`;
  for (const page of [ada, other]) await page.goto(integration);
  assert.equal(await ada.locator("ol.steps").count(), 0, "no wizard where something is edited");
  await ada.fill("#description", "From the first window.");
  await ada.click("text=Save changes");
  await other.fill("#description", "From the second window.");
  await other.click("text=Save changes");
  assert.match(await other.textContent(".summary"), /“From the first window\.”/);
  for (const page of [one, two, ada, other]) await page.context().close();
});

test("who may not open content asks, and its publisher lets them in", async () => {
  const made = await fetch(`${here.portal}/__api__/v1/content`, { method: "POST", headers: { Authorization: `Key ${here.accounts.find((known) => known.username === "bo").api_key}` }, body: JSON.stringify({ name: "closed", title: "Closed", access_type: "acl", upstream_url: here.content[0].upstream ?? "http://127.0.0.1:9" }) });
  const { guid } = await made.json();
  const vera = await person("vera", NARROW), bo = await person("bo");
  await vera.goto(`${here.portal}/content/${guid}/`);
  assert.match(await vera.textContent("h1"), /You may not open this content/);
  await look(vera, "may-not-open-narrow-dark", { scripted: false });
  await vera.click("text=Request access");
  await vera.click("button:has-text('Request access')");
  assert.match(await vera.textContent(".flash"), /Asked/);
  await bo.goto(`${here.portal}/content-settings/${guid}`);
  assert.match(await bo.textContent("main"), /Vera .* asks to be let in/);
  await look(bo, "access-request");
  await bo.click("button:has-text('Let in')");
  assert.match(await bo.textContent(".flash"), /They may open it now/);
  await vera.goto(`${here.portal}/content`);
  assert.match(await vera.textContent("main"), /Closed/);
  for (const page of [vera, bo]) await page.context().close();
});

test("people are imported from a table, and handled together", async () => {
  const ada = await person("ada"), narrow = await person("ada", NARROW);
  await both(ada, narrow, "import", "/people/import");
  await ada.fill("#text", "username,email,role\nnew1,new1@example.org,viewer\nvera,,\nnew2,nobody,chief\n");
  await ada.click("text=Preview");
  assert.match(await ada.textContent(".summary"), /Line 4: the role/);
  await ada.fill("#text", "username,email,role\nnew1,new1@example.org,viewer\nvera,,\nnew2,nobody,publisher\n");
  await ada.click("text=Preview");
  assert.match(await ada.textContent(".summary"), /Line 4: Enter an e-mail address[\s\S]*Line 3: Somebody has this user name already/);
  await look(ada, "import-errors");
  await ada.fill("#text", "username;email;first_name\nnew1;new1@example.org;Änne\nnew2;;Bob\n");
  await ada.click("text=Preview");
  assert.match(await ada.textContent("main"), /2 people will be added/);
  await look(ada, "import-preview");
  await ada.click("text=Add them");
  assert.match(await ada.textContent(".flash"), /Added 2 people/);
  for (const reader of [ada, narrow]) {
    await reader.goto(`${here.portal}/people?find=new`);
    for (const box of await reader.locator("input[name=person]").all()) await box.check();
    await reader.click("button:has-text('Sign out')  >> nth=-1");
    assert.match(await reader.textContent("h1"), /Sign out 2 people\?/);
    await look(reader, reader === ada ? "bulk-question" : "bulk-question-narrow-dark", { scripted: reader === ada });
    await reader.click("button.destructive");
    assert.match(await reader.textContent(".flash"), /Signed out 2 people/);
  }
  await ada.goto(`${here.portal}/people?find=new`);
  await ada.check("text=All on this page");
  await ada.click("button:has-text('Lock')");
  await ada.click("button.destructive");
  assert.match(await ada.textContent(".flash"), /Locked 2 people/);
  await ada.goto(`${here.portal}/people?state=locked`);
  await ada.click("tbody a >> nth=0");
  assert.match(await ada.textContent(".head"), /Locked/);
  await look(ada, "person-locked");
  for (const page of [ada, narrow]) await page.context().close();
});

test("uses have totals and a download, consents end together, and the handbook is searched", async () => {
  const ada = await person("ada"), vera = await person("vera");
  await ada.goto(`${here.portal}/audit/uses`);
  assert.match(await ada.textContent("main"), /\d exchanges?, by \d (person|people) in \d content items?\./);
  await look(ada, "uses");
  const [download] = await Promise.all([ada.waitForEvent("download"), ada.click("text=Download as CSV")]);
  const { readFileSync } = await import("node:fs");
  const table = readFileSync(await download.path(), "utf8").split("\n");
  assert.equal(table[0].trim(), "hour,person,person_guid,content,content_guid,integration,integration_guid,exchanges,last_at");
  assert.match(table[1], /Sales dashboard/);
  await ada.goto(`${here.portal}/audit/uses?from=2001-01-01&to=2001-01-02`);
  assert.match(await ada.textContent("main"), /Nothing matches/);
  // A second consent, so that there is something to end together.
  await vera.goto(here.content[1].url);
  if (vera.url().includes("consents/new")) await vera.click("form .primary");
  await vera.goto(`${here.portal}/consents`);
  assert.equal(await vera.locator(".panel a.strong").first().getAttribute("href"), `/content/${here.content[0].guid}/`);
  if (await vera.$("button:has-text('Revoke all')")) {
    await vera.click("button:has-text('Revoke all')");
    assert.match(await vera.textContent("h1"), /Revoke 2 consents\?/);
    await look(vera, "revoke-all");
    await vera.click("button.destructive");
    assert.match(await vera.textContent(".flash"), /Revoked 2 consents/);
  }
  await vera.goto(`${here.portal}/help`);
  await vera.fill("#find", "revoke");
  await vera.click("button:has-text('Search')");
  await look(vera, "help-found");
  await vera.click("article a >> nth=0");
  assert.match(vera.url(), /\/help\/\w+#/);
  for (const page of [ada, vera]) await page.context().close();
});

test("the frame: folded navigation, menus that close, colours, times, sessions, what a publisher may choose", async () => {
  const bo = await person("bo", { viewport: { width: 320, height: 700 } });
  await bo.goto(`${here.portal}/content`);
  const bar = await bo.locator("header.bar").boundingBox();
  assert.ok(bar.height <= 64, `the bar is ${bar.height} px high`);
  assert.equal(await bo.evaluate(() => document.documentElement.scrollWidth), 320);
  await bo.click(".menu summary");
  await look(bo, "menu-320");
  await bo.keyboard.press("Escape");
  assert.equal(await bo.locator(".menu-panel").isVisible(), false);
  await bo.click(".menu summary");
  await bo.mouse.click(20, 500);
  assert.equal(await bo.locator(".menu-panel").isVisible(), false);
  for (const [button, theme] of [["Dark colours", "dark"], ["Light colours", "light"], ["Colours of the system", null]]) {
    await bo.click(".menu summary");
    await bo.click(`button:has-text('${button}')`);
    assert.equal(await bo.locator("html").getAttribute("data-theme"), theme);
    assert.equal(new URL(bo.url()).pathname, "/content", "back at the same page");
  }
  await bo.setViewportSize({ width: 1280, height: 820 });
  await bo.goto(`${here.portal}/account`);
  assert.match(await bo.textContent("main"), /Chrome on Linux/);
  await bo.fill("#time_zone", "Europe/Nowhere");
  await bo.click("text=Save time zone");
  assert.match(await bo.textContent(".summary"), /no time zone of this name/);
  await bo.fill("#time_zone", "Asia/Kolkata");
  await bo.click("text=Save time zone");
  assert.match(await bo.textContent(".flash"), /Asia\/Kolkata/);
  assert.match(await bo.locator("time").first().getAttribute("title"), / IST$/);
  await look(bo, "account-zone");
  await bo.click("nav a:has-text('Integrations')");
  assert.match(await bo.textContent("main"), /What you may attach/);
  assert.equal(await bo.locator("thead th").count(), 2);
  await look(bo, "publisher-integrations");
  const forced = await person("ada", { forcedColors: "active" });
  await forced.goto(`${here.portal}/content`);
  assert.match(await forced.textContent("main"), /Until people can work here[\s\S]*Make a backup/);
  await look(forced, "forced-colours");
  for (const page of [bo, forced]) await page.context().close();
});

test("content leads back to the portal where its publisher left the link on", async () => {
  const bo = await person("bo");
  await bo.goto(`${here.portal}/content-settings/${here.content[0].guid}`);
  await bo.click("text=How the portal carries it");
  await bo.selectOption("#portal_link", "yes");
  await bo.click("text=Save settings");
  const vera = await person("vera");
  await vera.goto(here.content[0].url);
  if (vera.url().includes("consents/new")) await vera.click("form .primary");
  await vera.waitForSelector("#rows");
  await vera.click("text=Your consents");
  assert.equal(vera.url(), `${here.portal}/consents`);
  for (const page of [bo, vera]) await page.context().close();
});
