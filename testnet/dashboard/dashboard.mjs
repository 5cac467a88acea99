// The dashboard in a real browser: node dashboard.mjs URL KEY [DIRECTORY FOR SCREENSHOTS]
//
// URL is a plane with at least one worker behind it, KEY one of its API keys with something to spend. Each check says what a
// person would see; the first that fails ends the run.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";
import { Daemon } from "./daemon.mjs";

const [url, key, shots] = process.argv.slice(2);
assert.ok(url && key, "usage: node dashboard.mjs URL KEY [DIRECTORY]");
const SOON = 60_000;
const executablePath = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => path && existsSync(path));
assert.ok(executablePath, "there is no Chromium: install it, or name it in CHROMIUM");

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const wrong = [];
let step = "start";
// A plane may have been through this before.
const mine = `from the browser, ${Date.now()}`;

// A window of its own, which tells of every error that a page makes.
async function opened(options = {}) {
  const context = await browser.newContext({ baseURL: url, ...options });
  context.setDefaultTimeout(SOON);
  const page = await context.newPage();
  const note = (what) => wrong.push(`${step}, ${page.url()}: ${what}`);
  page.on("pageerror", (error) => note(error.message));
  page.on("console", (message) => {
    // What a step asks for and is refused shows as an error of the network.
    if (message.type() === "error" && !/Failed to load resource/.test(message.text())) note(message.text());
  });
  return page;
}

async function check(name, act) {
  step = name;
  await act();
  assert.deepEqual(wrong, [], "no page made an error");
  console.log(`ok  ${name}`);
}

const api = (path, { method = "GET", body, with: bearer = key } = {}) =>
  fetch(url + path, {
    method,
    headers: { authorization: `Bearer ${bearer}`, "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });

async function shot(page, name) {
  if (shots) await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
}

const text = (page, selector) => page.locator(selector).first().textContent();

const visitor = await opened();
let model;

await check("the network is there for everybody", async () => {
  await visitor.goto("/");
  await visitor.locator("#glance").getByText("Live nodes").waitFor();
  await visitor.locator("#models tbody tr").first().waitFor();
  model = (await text(visitor, "#models tbody tr a")).trim();
  await visitor.locator("#live.on").waitFor();
  for (const [path, title] of [["/nodes", "Nodes"], ["/models", "Models"], ["/receipts", "Receipts"], ["/docs/api", "API"]]) {
    await visitor.goto(path);
    assert.equal(await text(visitor, "h1"), title);
  }
});

await check("what is somebody's own asks to sign in, and comes back there", async () => {
  for (const path of ["/jobs", "/money", "/keys", "/settings"]) {
    await visitor.goto(path);
    assert.equal(new URL(visitor.url()).pathname, "/signin");
  }
  const live = await visitor.request.get("/live?of=/jobs");
  assert.equal(live.status(), 401);
});

await check("a settled job appears by itself", async () => {
  const receipts = await opened();
  await receipts.goto("/receipts");
  await visitor.goto("/");
  for (const page of [visitor, receipts]) await page.locator("#live.on").waitFor();
  const jobs = () => document.querySelectorAll("#glance dd")[3].textContent;
  const newest = () => document.querySelector("#receipts tbody time")?.dateTime ?? "";
  const [before, last] = [await visitor.evaluate(jobs), await receipts.evaluate(newest)];
  const job = await api("/api/v1/jobs", { method: "POST", body: { model, prompt: "Go.", max_tokens: 8 } });
  assert.equal(job.status, 202, await job.text());
  await visitor.waitForFunction((before) => document.querySelectorAll("#glance dd")[3].textContent !== before, before);
  await receipts.waitForFunction((last) => (document.querySelector("#receipts tbody time")?.dateTime ?? "") > last, last);
  await receipts.context().close();
});

const me = await opened();

await check("an API key that may do all signs in", async () => {
  await me.goto("/signin?next=/keys");
  await me.getByLabel("Or with an API key").fill("sk-plane-nonsense");
  await me.getByRole("button", { name: "Sign in", exact: true }).click();
  await me.locator("form[data-key] output.bad").waitFor();
  await me.getByLabel("Or with an API key").fill(key);
  await me.getByRole("button", { name: "Sign in", exact: true }).click();
  await me.waitForURL("**/keys");
});

await check("a key is made, shown once, used, and revoked", async () => {
  await me.getByLabel("Name").fill(mine);
  await me.getByLabel("Dollars a day at most").fill("0.50");
  await me.getByRole("button", { name: "Make a key" }).click();
  const made = (await text(me, "output .secret")).trim();
  const row = me.locator("#keys tr", { hasText: mine });
  await row.getByText("$0.50").waitFor();
  assert.equal((await api("/api/v1/jobs?limit=1", { with: made })).status, 200);
  assert.equal((await api("/api/v1/keys", { with: made })).status, 403, "it may not manage");
  await me.reload();
  assert.ok(!(await me.content()).includes(made), "it is not shown again");
  me.once("dialog", (dialog) => dialog.accept());
  await row.getByRole("button", { name: "Revoke" }).click();
  await row.getByText("revoked").waitFor();
  assert.equal((await api("/api/v1/jobs?limit=1", { with: made })).status, 401);
});

await check("an answer streams, and tells what it cost", async () => {
  await me.goto(`/chat?model=${encodeURIComponent(model)}`);
  await me.getByLabel("Message").fill("Tell me a story. <b>&amp;</b>");
  await me.keyboard.press("Control+Enter");
  await me.locator(".said.me", { hasText: "<b>&amp;</b>" }).waitFor();
  const note = me.locator(".said.it small", { hasText: "tokens" });
  await note.waitFor();
  assert.match(await note.textContent(), /node ….{8} · \d+ \+ \d+ tokens · first after \d+ ms · \$\d/);
  assert.ok((await text(me, ".said.it p")).length > 0);
  await shot(me, "chat");
  await note.getByRole("link").click();
  await me.waitForURL("**/jobs/job_*");
  await me.locator("#job").getByText("completed").waitFor();
  assert.ok((await text(me, ".answer")).length > 0);
});

await check("a long answer is stopped", async () => {
  await me.goto("/chat");
  await me.getByText("Settings", { exact: true }).click();
  await me.getByLabel("Tokens at most").fill("400");
  await me.getByLabel("Message").fill("Go on for ever.");
  // The engine is faster than a person: whoever stops must not wait for a picture of it.
  await me.evaluate(() => {
    const stop = document.querySelector("#stop");
    new MutationObserver((_, watch) => stop.hidden || (watch.disconnect(), stop.click())).observe(stop, { attributes: true });
  });
  await me.getByRole("button", { name: "Ask" }).click();
  await me.locator(".said.it .bad", { hasText: "cancelled" }).waitFor();
});

await check("a receipt is verified in the browser, and a changed one is not", async () => {
  await me.goto("/receipts");
  await me.locator("#receipts tr", { hasText: "both signed" }).first().getByRole("link").first().click();
  await me.waitForURL("**/receipts/*");
  await me.getByRole("button", { name: "Verify in this browser" }).click();
  await me.locator("output.good", { hasText: "Both signatures are good" }).waitFor();
  await shot(me, "receipt");
  const outcomes = await me.evaluate(async () => {
    const { verify } = await import(document.querySelector("script[type=module]").src.replace("app.js", "verify.js"));
    const { worker, buyer, digest, network } = document.querySelector("[data-verify]").dataset;
    const said = async (changed) => {
      try {
        await verify({ worker, buyer, digest, network, ...changed });
        return "good";
      } catch (error) {
        return error.message;
      }
    };
    const flipped = (hex, at) => hex.slice(0, at) + (hex[at] === "0" ? "1" : "0") + hex.slice(at + 1);
    const places = [10, Math.floor(worker.length / 2), worker.length - 3];
    return {
      none: await said({}),
      worker: await Promise.all(places.map((at) => said({ worker: flipped(worker, at) }))),
      buyer: await said({ buyer: flipped(buyer, buyer.length - 3) }),
      network: await said({ network: "another" }),
      swapped: await said({ buyer: worker }),
      digest: await said({ digest: flipped(digest, 5) }),
    };
  });
  assert.equal(outcomes.none, "good");
  for (const bad of [...outcomes.worker, outcomes.buyer, outcomes.network, outcomes.swapped, outcomes.digest]) assert.notEqual(bad, "good");
});

await check("money adds up, and comes as CSV", async () => {
  await me.goto("/money");
  await me.locator("#entries").getByText("grant").waitFor();
  const rows = (await (await me.request.get("/money.csv")).text()).trim().split("\n");
  assert.equal(rows[0], "number,time,kind,reference,amount_micro_usd");
  const sum = rows.slice(1).reduce((sum, row) => sum + Number(row.split(",").at(-1)), 0);
  const client = await (await api("/api/v1/me")).json();
  assert.equal(sum, client.balance_micro_usd);
  assert.ok(rows.some((row) => row.includes(",job,")));
  await shot(me, "money");
});

await check("a passkey is added, and signs in after signing out", async () => {
  const cdp = await me.context().newCDPSession(me);
  await cdp.send("WebAuthn.enable");
  await cdp.send("WebAuthn.addVirtualAuthenticator", {
    options: { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true },
  });
  await me.goto("/settings");
  const name = await text(me, "header .who");
  await me.getByRole("button", { name: "Add a passkey" }).click();
  await me.getByRole("cell", { name: "passkey", exact: true }).first().waitFor();
  await me.getByRole("button", { name: "Sign out" }).click();
  await me.waitForURL(url + "/");
  await me.getByRole("link", { name: "Sign in" }).click();
  await me.getByRole("button", { name: "Sign in with a passkey" }).click();
  await me.waitForFunction((name) => document.querySelector("header .who")?.textContent === name, name);
});

await check("a job that fails says why, as text", async () => {
  const evil = '<img src=x onerror="document.title=1">';
  const job = await (await api("/api/v1/jobs", { method: "POST", body: { model: evil, prompt: "Go.", max_tokens: 4 } })).json();
  await me.goto(`/jobs/${job.id}`);
  await me.locator("#job").getByText("failed").first().waitFor();
  assert.ok((await text(me, "#job")).includes(evil));
  assert.equal(await me.locator("#job img").count(), 0);
  await me.goto("/jobs");
  await me.locator("#jobs tbody tr").first().waitFor();
  await shot(me, "jobs");
});

await check("a node's page shows prices, earnings and what it lost", async () => {
  await me.goto("/nodes");
  await shot(me, "nodes");
  await me.locator("#nodes tbody a").first().click();
  await me.waitForURL("**/nodes/16U*");
  for (const title of ["Models", "Earnings", "Auctions that others won", "Recent jobs"]) await me.getByRole("heading", { name: title }).waitFor();
  await shot(me, "node");
});

await check("an owner installs a model on a daemon, and sees how far it is", async () => {
  const daemon = new Daemon(url);
  await daemon.register();
  const path = "/api/v1/user/pubkey/link";
  const body = JSON.stringify({ role: "provider", label: "at home" });
  await me.goto("/settings");
  // Both sign: the owner by its session, the daemon by its key.
  const linked = await me.evaluate(
    async ([path, body, header]) => {
      const csrf = document.querySelector('meta[name="csrf"]').content;
      const headers = { "content-type": "application/json", "x-csrf-token": csrf, "x-infernet-auth": header };
      const response = await fetch(path, { method: "POST", headers, body });
      return [response.status, await response.text()];
    },
    [path, body, await daemon.header("POST", path, body)],
  );
  assert.equal(linked[0], 200, linked[1]);
  await me.goto(`/nodes/${daemon.id}`);
  await me.locator("#machine").getByText("nvidia L4").waitFor();
  await me.locator("#machine").getByText("61 °C").waitFor();
  await me.getByLabel("Model").fill("smollm2:135m");
  await me.getByRole("button", { name: "Install" }).click();
  const row = me.locator("#commands tr", { hasText: "smollm2:135m" }).first();
  await row.getByText("waits for the node").waitFor();
  const { commands } = await daemon.say("/api/v1/node/commands/poll", {});
  assert.deepEqual(commands.map(({ command, args }) => [command, args]), [["model_install", { model: "smollm2:135m" }]]);
  const command = `/api/v1/node/commands/${commands[0].id}`;
  await daemon.say(`${command}/progress`, { progress: { status: "pulling", pct: 42, completed: 42, total: 100 } });
  await row.getByText("42 %").waitFor();
  assert.equal(await row.locator("progress").evaluate((bar) => bar.value), 42);
  await shot(me, "daemon");
  await daemon.say(`${command}/complete`, { status: "completed" });
  await row.getByText("completed").waitFor();
  // To everybody else it is just a node.
  await visitor.goto(`/nodes/${daemon.id}`);
  await visitor.locator("#machine").waitFor();
  assert.equal(await visitor.locator("#commands").count(), 0);
  assert.equal(await visitor.getByRole("button", { name: "Install" }).count(), 0);
});

await check("every page is for keyboards, phones and the dark", async () => {
  const state = await me.context().storageState();
  const phone = await opened({ storageState: state, viewport: { width: 360, height: 740 }, colorScheme: "dark", hasTouch: true });
  for (const path of ["/", "/nodes", "/models", "/chat", "/jobs", "/receipts", "/money", "/keys", "/settings", "/signin", "/docs/api"]) {
    await phone.goto(path);
    const found = await phone.evaluate(() => ({
      wide: document.documentElement.scrollWidth - innerWidth,
      titles: document.querySelectorAll("h1").length,
      unnamed: [...document.querySelectorAll("input:not([type=hidden]), select, textarea")].filter((field) => !field.labels?.length).length,
      nameless: [...document.querySelectorAll("button, a")].filter((one) => !one.textContent.trim()).length,
      dark: getComputedStyle(document.documentElement).backgroundColor,
    }));
    assert.ok(found.wide <= 0, `${path} is ${found.wide} px too wide`);
    assert.deepEqual([found.titles, found.unnamed, found.nameless], [1, 0, 0], path);
    assert.equal(found.dark, "rgb(17, 22, 28)", path);
    await shot(phone, `phone${path.replaceAll("/", "-")}`);
  }
  await phone.goto("/");
  await phone.keyboard.press("Tab");
  assert.equal(await phone.evaluate(() => document.activeElement.textContent), "To the content");
  await phone.context().close();
});

await check("a page that is not live says so", async () => {
  await me.goto("/");
  await me.locator("#live.on").waitFor();
  await shot(me, "network");
  await me.context().setOffline(true);
  // A stream that is open is not cut by that: a page that comes back is.
  await me.evaluate(() => dispatchEvent(new PageTransitionEvent("pagehide")));
  const other = await opened();
  await other.route("**/live?*", (route) => route.abort());
  await other.goto("/");
  await other.locator("#live.off").waitFor();
  await other.getByText("not live").waitFor();
});

await browser.close();
console.log("the dashboard is as it should be");
