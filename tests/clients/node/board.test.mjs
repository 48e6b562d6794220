// The example application's page in a real browser: supabase-js as published, from another origin than the server's,
// against two tenants.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { chromium } from "../packages.mjs";

const url = process.env.TENANT_URL;
const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const files = new Map([
  ["/supabase.js", "node_modules/@supabase/supabase-js/dist/umd/supabase.js"],
  ["/driver.js", "browser/driver.js"],
  ["/board.html", "../../deploy/example/board.html"],
]);
const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** A page that has not reported by then hangs. */
const PAGE_MS = 60_000;

let pages, profiles, reported;

before(async () => {
  profiles = await mkdtemp(path.join(tmpdir(), "tenantry-browser-"));
  pages = http.createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/report") {
      reported(JSON.parse((await request.setEncoding("utf8").toArray()).join("")));
      return response.end();
    }
    const file = files.get(pathname);
    if (!file) return response.writeHead(404).end();
    const content = await readFile(path.join(root, file), "utf8");
    const isPage = file.endsWith(".html");
    response.setHeader("content-type", isPage ? "text/html" : "text/javascript");
    response.end(isPage ? `${content}<script src="driver.js"></script>` : content);
  });
  await once(pages.listen(0, "127.0.0.1"), "listening");
});

after(async () => {
  pages.close();
  pages.closeAllConnections();
  await rm(profiles, { recursive: true, force: true });
});

/** What somebody with this token sees on the page, in a browser of their own. */
async function visit(token) {
  const report = new Promise((resolve) => (reported = resolve));
  const profile = await mkdtemp(path.join(profiles, "profile-"));
  const page = `http://127.0.0.1:${pages.address().port}/board.html#${new URLSearchParams({ url, token })}`;
  // A group of its own: a browser is many processes.
  const browser = spawn(chromium(), [...flags, `--user-data-dir=${profile}`, page], { detached: true, stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  browser.stderr.setEncoding("utf8").on("data", (text) => (said += text));
  const closed = once(browser, "close").then(() => ({ failed: `the browser ended: ${said}` }));
  let clock;
  const late = new Promise((resolve) => (clock = setTimeout(resolve, PAGE_MS, { failed: `the page did not report: ${said}` })));
  const seen = await Promise.race([report, closed, late]);
  clearTimeout(clock);
  if (browser.exitCode === null) process.kill(-browser.pid, "SIGKILL");
  await closed;
  assert.equal(seen.failed, undefined, seen.failed);
  return seen;
}

async function call(pathname, token, body) {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const answer = await fetch(`${url}${pathname}`, { method: "POST", headers, body: JSON.stringify(body) });
  const said = await answer.json();
  assert.ok(answer.ok, JSON.stringify(said));
  return said;
}

/** A tenant with the board of one of the demo's companies. */
async function company(name) {
  const { token } = await call("/admin/v1/tenants", process.env.ADMIN_KEY, { slug: `browser-${name}`, name });
  const data = await readFile(path.join(root, `../../src/cli/demo/${name}.sql`), "utf8");
  await call("/v1/sql", token, { script: data });
  return token;
}

describe("the board, from another origin", () => {
  let acme, globex;
  before(async () => ([acme, globex] = [await company("acme"), await company("globex")]));

  test("a page reads, writes, embeds, shows a refusal and reads Content-Range", async () => {
    const seen = await visit(acme);
    assert.equal(seen.count, "3 of 3 projects");
    for (const text of ["Harbour Bridge (Ada Okafor)", "Order 480 anchor bolts"]) assert.ok(seen.first.includes(text), seen.first);
    assert.deepEqual([seen.added, seen.done], ["the task", true]);
    assert.match(seen.refused, /\(23514\)$/);
    assert.deepEqual(seen.range, [206, "0-0/3"]);
  });

  test("another tenant's page has its own rows and none of these", async () => {
    const seen = await visit(globex);
    assert.ok(seen.first.includes("Wind Park Skagen"), seen.first);
    const said = JSON.stringify(seen);
    for (const foreign of ["Harbour", "Tunnel", "Ada Okafor", "anchor bolts"]) assert.ok(!said.includes(foreign), said);
    const rows = (await call("/v1/sql", globex, { statements: [{ sql: "SELECT count(*) FROM tasks WHERE title = 'Added in a browser'" }] })).results[0].rows;
    assert.deepEqual(rows, [[1]]);
  });

  test("a page without a token that counts is told so", async () => {
    const seen = await visit("nonsense");
    assert.match(seen.first, /\(unauthenticated\)/);
  });
});
