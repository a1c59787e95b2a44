// Groups, people, lists, the record and the pages of refusal, as their users walk them.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { browser, demo, look, PASSWORD, person as signedIn } from "./harness.mjs";

let here, chromium;

before(async () => {
  [here, chromium] = await Promise.all([demo(), browser()]);
});
after(async () => {
  await chromium?.close();
  await here?.stop();
});

const person = (name, options = {}) => signedIn(chromium, here.portal, name, options);

test("an administrator makes a group, invites somebody by a one-time link, and both are used", async () => {
  const page = await person("ada");
  await page.goto(`${here.portal}/groups`);
  await look(page, "groups-empty");
  await page.fill("#name", "Sales analysts");
  await page.click("button:has-text('Add group')");
  assert.match(await page.textContent("h1"), /Sales analysts/);
  await page.selectOption("select[name=person]", await page.getAttribute("option:has-text('Vera')", "value"));
  await page.click("text=Add to the group");
  assert.match(await page.textContent("table"), /Vera/);
  await look(page, "group");
  await page.goto(`${here.portal}/people`);
  await look(page, "people");
  await page.click("main table a:has-text('Vera')");
  assert.match(await page.textContent("main"), /Sales analysts/);
  await look(page, "person");

  await page.goto(`${here.portal}/people/new`);
  await page.fill("#username", "nina");
  await page.fill("#email", "nina@example.org");
  await page.click("button.primary");
  const link = await page.inputValue("#secret");
  await look(page, "one-time-link");
  const guest = await person(null);
  await guest.goto(link);
  await look(guest, "setup");
  await guest.fill("input[type=password]", "a long enough sentence");
  await guest.click("main button");
  await guest.goto(`${here.portal}/account`);
  assert.match(await guest.textContent("body"), /nina/);
  await guest.context().close();
  // Once: the next one who opens it is told so.
  const late = await person(null);
  await late.goto(link);
  await look(late, "setup-used");
  assert.equal(await late.$("input[type=password]"), null);
  await late.context().close();
  await page.goto(`${here.portal}/account/confirm?next=/people`);
  await look(page, "confirm");
  await page.context().close();
});

test("an integration has three kinds of availability, and a publisher outside of its list is not offered it", async () => {
  const page = await person("ada");
  const integration = here.integrations[0].guid;
  await page.goto(`${here.portal}/integrations/${integration}`);
  await look(page, "integration-availability");
  await page.check("input[name=availability][value=listed]");
  await page.click("text=Save who may choose it");
  assert.match(await page.textContent("main"), /nobody|Nobody/i);
  await look(page, "integration-listed");
  const bo = await person("bo");
  const settings = `${here.portal}/content-settings/${here.content[1].guid}`;
  await bo.goto(settings);
  assert.equal(await bo.$(`input[name=integration][value="${integration}"]`), null);
  await look(bo, "content-settings-nothing-offered");
  await page.check("input[name=availability][value=everyone]");
  await page.click("text=Save who may choose it");
  await bo.goto(settings);
  assert.ok(await bo.$(`input[name=integration][value="${integration}"]`));
  await bo.context().close();
  await page.context().close();
});

test("an integration that takes only the viewer's own account refuses another, and offers to choose again", async () => {
  const ada = await person("ada");
  await ada.goto(`${here.portal}/integrations/${here.integrations[0].guid}/edit`);
  await ada.check("input[name=identity_check][value=require]");
  await ada.click("text=Save changes");
  await ada.context().close();
  const page = await person("vera");
  await page.goto(here.content[0].url);
  await page.click("text=Continue to Microsoft");
  await page.waitForURL(/oauth2\/v2\.0/);
  await page.fill("#username", "viktor@example.org");
  await page.fill("#password", PASSWORD);
  await page.click("#signin");
  if (await page.$("#accept")) await page.click("#accept");
  await page.waitForSelector("h1:has-text('That is not your account')");
  assert.match(await page.textContent("main"), /viktor@example.org/);
  await look(page, "not-your-account");
  await page.click("text=Choose another account");
  await page.click("text=Continue to Microsoft");
  await page.waitForURL(/oauth2\/v2\.0/);
  await page.fill("#username", "vera@example.org");
  await page.fill("#password", PASSWORD);
  await page.click("#signin");
  if (await page.$("#accept")) await page.click("#accept");
  await page.waitForSelector("#who");
  assert.equal(await page.textContent("#who"), "vera@example.org");
  await page.context().close();
});

test("an administrator finds events by person and by words, exports them, and sees who used whose access", async () => {
  const page = await person("ada");
  await page.goto(`${here.portal}/audit`);
  await look(page, "audit");
  await page.goto(`${here.portal}/audit?text=Sales`);
  assert.match(await page.textContent("table"), /Sales/);
  await look(page, "audit-filtered");
  await page.goto(`${here.portal}/audit/uses`);
  assert.match(await page.textContent("table"), /Vera/);
  await look(page, "audit-uses");
  const exported = await page.evaluate(async () => (await fetch("/audit/export")).status);
  // Only windows get the portal's pages; a script does not.
  assert.equal(exported, 403);
  const narrow = await person("ada", { viewport: { width: 360, height: 740 }, colorScheme: "dark" });
  for (const path of ["groups", "audit", "audit/uses", "people", `integrations/${here.integrations[0].guid}`]) {
    await narrow.goto(`${here.portal}/${path}`);
    await look(narrow, `narrow-dark-${path.replace(/\W+/g, "-").slice(0, 24)}`);
    assert.ok((await narrow.evaluate(() => document.documentElement.scrollWidth)) <= 360, path);
  }
  await narrow.context().close();
  await page.context().close();
});
