// The three people's stories in a real browser, with and without JavaScript, wide and narrow, light and dark.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { browser, demo, look, PASSWORD, person as signedIn, providerSignIn } from "./harness.mjs";

let here, chromium;

before(async () => {
  [here, chromium] = await Promise.all([demo(), browser()]);
});
after(async () => {
  await chromium?.close();
  await here?.stop();
});

const person = (name, options = {}) => signedIn(chromium, here.portal, name, options);

test("a viewer walks from a link to her own rows, and takes it back", async () => {
  const sales = here.content[0];
  const context = await chromium.newContext({ viewport: { width: 1180, height: 820 } });
  const page = await context.newPage();
  // Not signed in: the sign-in page, then on to the very address asked for.
  await page.goto(`${sales.url}?tab=2`);
  await look(page, "login");
  await page.fill("#username", "vera");
  await page.fill("#password", "wrong password");
  await page.click(".card button");
  assert.match(await page.textContent(".summary"), /do not fit together/);
  await look(page, "login-wrong");
  await page.fill("#password", PASSWORD);
  await page.click(".card button");
  await page.waitForURL(/consents\/new/);
  assert.match(await page.textContent("h1"), /Let “Sales dashboard” use Azure Databricks as you\?/);
  assert.match(await page.textContent("main"), /published by Bo Lind/);
  await look(page, "consent-page");
  await page.click("text=Continue to Microsoft");
  await providerSignIn(page, "vera");
  await page.click("#accept");
  await page.waitForSelector("#who");
  assert.equal(page.url(), `${sales.place}?tab=2`);
  assert.notEqual(new URL(page.url()).hostname, new URL(here.portal).hostname);
  assert.equal(await page.textContent("#who"), "vera@example.org");
  assert.match(await page.textContent("#rows"), /North/);
  await page.goto(`${here.portal}/consents`);
  assert.match(await page.textContent("main"), /as vera@example.org/);
  assert.match(await page.textContent("main"), /1 time/);
  await look(page, "consents");
  await page.click(".panel a:has-text(\"Revoke\")");
  await look(page, "revoke");
  await page.click("button.destructive");
  assert.match(await page.textContent(".flash"), /Revoked Sales dashboard/);
  // The next visit asks again; with the live connection it is one click and no redirect.
  await page.goto(sales.url);
  await page.waitForURL(/consents\/new/);
  await look(page, "consent-one-click");
  await page.click("button:has-text(\"Allow\")");
  await page.waitForSelector("#who");
  await page.goto(`${here.portal}/consents`);
  await page.click("a:has-text(\"Disconnect\")");
  assert.match(await page.textContent("main"), /A token already handed out works until/);
  await look(page, "disconnect");
  await page.click("button.destructive");
  assert.match(await page.textContent("main"), /No content acts for you/);
  await look(page, "consents-empty");
  await context.close();
});

test("two viewers see their own rows", async () => {
  for (const [name, region] of [["viktor", "South"], ["vera", "North"]]) {
    const page = await person(name);
    await page.goto(here.content[0].url);
    await page.click("text=Continue to Microsoft");
    await providerSignIn(page, name);
    if (await page.$("#accept")) await page.click("#accept");
    await page.waitForSelector("#who");
    assert.equal(await page.textContent("#who"), `${name}@example.org`);
    assert.match(await page.textContent("#rows"), new RegExp(region));
    await page.context().close();
  }
});

test("a viewer who declines gets a page that explains, and no loop", async () => {
  const page = await person("bo");
  await page.goto(here.content[0].url);
  await page.click("text=Continue to Microsoft");
  await providerSignIn(page, "bo");
  await page.click("#cancel");
  assert.match(await page.textContent("h1"), /You chose not to connect/);
  await look(page, "declined");
  await page.context().close();
});

test("another account than expected is noticed and nothing uses it until the viewer decides", async () => {
  const page = await person("bo");
  await page.goto(here.content[0].url);
  await page.click("text=Continue to Microsoft");
  await providerSignIn(page, "viktor");
  await page.waitForURL(/consents\/account/);
  assert.match(await page.textContent("main"), /viktor@example.org/);
  await look(page, "other-account");
  await page.click("text=Not now");
  await page.goto(`${here.portal}/consents`);
  assert.match(await page.textContent("main"), /No content acts for you/);
  await page.context().close();
});

test("an administrator adds, sees, edits and deletes an integration", async () => {
  const page = await person("ada");
  await page.goto(`${here.portal}/integrations`);
  await look(page, "integrations");
  await page.click("text=Add integration");
  await look(page, "integration-choose");
  await page.click("text=Azure Databricks (Microsoft Entra ID)");
  await page.fill("#tenant_id", here.registration.client_id);
  await page.fill("#client_id", here.registration.client_id);
  await page.fill("#client_secret", "not the value");
  await page.click("text=Save integration");
  assert.match(await page.textContent("main"), /This is the application ID you entered below/);
  assert.equal(await page.inputValue("#client_id"), here.registration.client_id);
  assert.equal(await page.inputValue("#client_secret"), "");
  await look(page, "add-integration-errors");
  await page.fill("#tenant_id", here.registration.tenant_id);
  await page.fill("#client_secret", here.registration.client_secret);
  await page.fill("#description", "For <b>tests</b>.");
  await page.click("text=Set for you by the template");
  await page.fill("#authority_host", here.registration.authority_host);
  await page.click("text=Save integration");
  // The demo has one of this name.
  assert.match(await page.textContent(".summary"), /called Azure Databricks already/);
  await page.check("#same_name");
  await page.click("text=Save integration");
  assert.match(await page.textContent(".flash"), /Saved Azure Databricks/);
  await look(page, "integration");
  await page.click("text=Edit integration");
  await look(page, "integration-edit");
  await page.fill("#name", "Databricks research");
  await page.click("text=Save changes");
  assert.match(await page.textContent("h1"), /Databricks research/);
  await page.click("a:has-text(\"Delete integration\")");
  await look(page, "integration-delete");
  await page.click("button.destructive");
  assert.match(await page.textContent(".flash"), /Deleted Databricks research/);
  for (const path of ["people", "people/new", "audit", "account", "account/keys", "help", "integrations/new?template=custom"]) {
    await page.goto(`${here.portal}/${path}`);
    await look(page, path.replace(/\W+/g, "-"));
  }
  await page.context().close();
});

test("a publisher adds content and picks an integration in half a minute", async () => {
  const page = await person("bo");
  await page.goto(`${here.portal}/content`);
  await look(page, "content");
  const waiting = here.content[1];
  await page.goto(`${here.portal}/content-settings/${waiting.guid}`);
  await page.check(`input[name=integration][value="${here.integrations[0].guid}"]`);
  await page.click("text=Save integration");
  assert.match(await page.textContent(".flash"), /Viewers are asked/);
  await look(page, "content-settings");
  // The demo made one already: it is replaced, and the old one stays for a while.
  await page.click("text=Replace key");
  await look(page, "content-key-replace");
  assert.equal(await page.isChecked("input[name=old][value=day]"), true);
  await page.click("button.destructive");
  assert.match(await page.inputValue("#secret"), /^vk_/);
  await look(page, "content-key");
  await page.reload();
  assert.match(await page.textContent("h1"), /no longer visible/);
  await page.goto(`${here.portal}/content/new?way=elsewhere`);
  await page.fill("#upstream_url", "ftp://nowhere");
  await page.click("button.primary");
  assert.match(await page.textContent(".summary"), /Enter a title/);
  await look(page, "content-new-errors");
  await page.context().close();
});

test("the whole path works without JavaScript, on a narrow dark screen", async () => {
  const page = await person("viktor", { javaScriptEnabled: false, viewport: { width: 360, height: 740 }, colorScheme: "dark" });
  await page.goto(here.content[1].url);
  assert.match(await page.textContent("h1"), /Churn explorer/);
  await look(page, "narrow-dark-consent", { scripted: false });
  // Connected by an earlier story or not: both ways end at his rows.
  await page.click("form .primary");
  await page.waitForURL((url) => !url.pathname.startsWith("/consents/new"));
  if (page.url().includes("oauth2")) await providerSignIn(page, "viktor");
  if (await page.$("#accept")) await page.click("#accept");
  await page.goto(`${here.portal}/consents`);
  await look(page, "narrow-dark-consents", { scripted: false });
  const overflow = await page.locator("body").evaluate?.((body) => body.scrollWidth).catch(() => 360);
  assert.ok(overflow <= 360, `the page is ${overflow} px wide`);
  for (const path of ["content", "account"]) {
    await page.goto(`${here.portal}/${path}`);
    await look(page, `narrow-dark-${path}`, { scripted: false });
  }
  await page.context().close();
});
