// Runs the published clients against servers: starts the binary that is named, gives each suite a tenant of its own,
// prints what passed, and fails if anything did not. A suite whose packages cannot be had has failed too; with
// `--if-possible` it is skipped, and the reason is told.
//
//     node run.mjs path/to/tenantry [--if-possible] [part of a suite's name]

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { unmet } from "./packages.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const given = process.argv.slice(2);
const ifPossible = given.includes("--if-possible");
const [binary, only = ""] = given.filter((argument) => argument !== "--if-possible");
if (!binary) throw new Error("usage: node run.mjs path/to/tenantry [--if-possible] [part of a suite's name]");

const node = (file) => ({ needs: ["npm"], command: process.execPath, args: ["--test", "--test-reporter=tap", path.join(here, "node", file)] });
const python = (file) => ({ needs: ["pypi"], command: "python3", args: [path.join(here, "python", file), "-v"], env: { PYTHONPATH: path.join(here, ".python") } });
const bookshop = { migrations: path.join(here, "bookshop", "migrations") };
const example = path.join(here, "..", "..", "deploy", "example");
const suites = [
  { name: "@libsql/client over http", ...node("libsql.test.mjs") },
  { name: "@libsql/client over ws", scheme: "ws", ...node("libsql.test.mjs") },
  { name: "@libsql/hrana-client over http", ...node("hrana.test.mjs") },
  { name: "@libsql/hrana-client over ws", scheme: "ws", ...node("hrana.test.mjs") },
  { name: "drizzle-orm over http", ...node("drizzle.test.mjs") },
  { name: "drizzle-orm over ws", scheme: "ws", ...node("drizzle.test.mjs") },
  { name: "libsql and libsql-client for Python", ...python("test_libsql.py") },
  ...["service", "authenticated"].flatMap((role) => [
    { name: `@supabase/postgrest-js reading, ${role}`, role, ...bookshop, ...node("rows.read.test.mjs") },
    { name: `@supabase/postgrest-js writing, ${role}`, role, ...bookshop, ...node("rows.write.test.mjs") },
    { name: `@supabase/postgrest-js calling, ${role}`, role, ...bookshop, ...node("rows.call.test.mjs") },
    { name: `@supabase/supabase-js, ${role}`, role, ...bookshop, ...node("supabase.test.mjs") },
    { name: `postgrest for Python, ${role}`, role, ...bookshop, ...python("test_postgrest.py") },
  ]),
  { name: "@supabase/supabase-js in a browser", migrations: example, ...node("board.test.mjs"), needs: ["npm", "chromium"] },
].filter(({ name }) => name.includes(only));

const folder = await mkdtemp(path.join(tmpdir(), "tenantry-clients-"));
const adminKey = `clients-${crypto.randomUUID()}`;
const servers = new Map();

try {
  const lacking = await unmet([...new Set(suites.flatMap((suite) => suite.needs))]);
  const outcomes = [];
  for (const suite of suites) {
    const lacks = suite.needs.find((need) => lacking.has(need));
    outcomes.push(lacks ? { name: suite.name, lacks } : await run(suite, await server(suite.migrations)));
  }
  console.log();
  for (const { name, lacks, passed, failed, seconds } of outcomes) {
    const [verdict, told] = lacks ? ["skipped", `for want of ${lacks}`] : [failed ? "FAILED" : "passed", `${passed} passed, ${failed} failed, ${seconds} s`];
    console.log(`${verdict.padEnd(8)} ${name.padEnd(42)} ${told}`);
  }
  for (const [need, reason] of lacking) console.log(`${need}: ${reason}`);
  const all = (key) => outcomes.reduce((sum, outcome) => sum + (outcome[key] ?? 0), 0);
  const skipped = outcomes.filter(({ lacks }) => lacks).length;
  console.log(`clients: ${all("passed")} passed, ${all("failed")} failed${skipped ? `, ${skipped} of ${outcomes.length} suites skipped` : ""}`);
  process.exitCode = all("failed") > 0 || outcomes.length === 0 || (skipped > 0 && !ifPossible) ? 1 : 0;
} finally {
  for (const { process: running } of servers.values()) {
    if (running.exitCode !== null) continue;
    running.kill("SIGTERM");
    await once(running, "exit");
  }
  await rm(folder, { recursive: true });
}

/** The address of the server whose tenants have these migrations; it is started for the first suite that wants it. */
async function server(migrations) {
  if (!servers.has(migrations)) {
    const env = { ...process.env, TENANTRY_ADMIN_KEY: adminKey, TENANTRY_TELEMETRY__LOG: "warn", TENANTRY_PLANS__DEFAULT__STATEMENT_MS: "3000", TENANTRY_REST__UNINDEXED_EMBEDS: "index" };
    if (migrations) env.TENANTRY_TENANTS__MIGRATIONS_DIR = migrations;
    const running = spawn(path.resolve(binary), ["serve", "--data-dir", path.join(folder, `data-${servers.size}`), "--listen", "127.0.0.1:0"], {
      env,
      stdio: ["ignore", "pipe", "inherit"],
      cwd: folder,
    });
    servers.set(migrations, { process: running, base: await listening(running) });
  }
  return servers.get(migrations).base;
}

/** The address that a server says it listens on. */
async function listening(running) {
  for await (const line of createInterface(running.stdout)) {
    const [, base] = line.match(/^listening on (http:\/\/\S+)$/) ?? [];
    if (base) return base;
  }
  throw new Error("the server ended before it listened");
}

/** What an operator asks for. */
async function ask(base, pathname, body) {
  const headers = { authorization: `Bearer ${adminKey}`, "content-type": "application/json" };
  const answer = await fetch(`${base}/admin/v1/${pathname}`, { method: "POST", headers, body: JSON.stringify(body) });
  const said = await answer.json();
  if (!answer.ok) throw new Error(`${pathname}: ${said.message}`);
  return said;
}

/** Runs one suite against a tenant of its own, with a token of this role. What a failing one printed is shown. */
async function run({ name, role = "service", scheme = "http", command, args, env }, base) {
  const slug = name.toLowerCase().replaceAll(/[^a-z]+/g, "-").replaceAll(/^-|-$/g, "");
  const { tenant: { id }, token: service } = await ask(base, "tenants", { slug, name });
  const person = { sub: "reader", role, scopes: ["sql:read", "sql:write"], expires_in_s: 3600 };
  const { token } = role === "service" ? { token: service } : await ask(base, `tenants/${id}/tokens`, person);
  const began = Date.now();
  const tenant = {
    TENANT_URL: base.replace("http", scheme), TENANT_TOKEN: token, TENANT_ROLE: role, TENANT_SERVICE_TOKEN: service, ADMIN_KEY: adminKey,
  };
  const suite = spawn(command, args, { env: { ...process.env, ...env, ...tenant }, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [suite.stdout, suite.stderr]) stream.setEncoding("utf8").on("data", (text) => (said += text));
  const [code] = await once(suite, "close");
  const count = (pattern) => Number(said.match(pattern)?.[1] ?? 0);
  const counts = command === process.execPath ? tap(count) : unittest(count);
  // A suite that broke off has failed, whatever it counted.
  if (code !== 0 && counts.failed === 0) counts.failed = 1;
  if (counts.failed > 0) console.log(`---- ${name}\n${said}`);
  return { name, ...counts, seconds: ((Date.now() - began) / 1000).toFixed(1) };
}

function tap(count) {
  return { passed: count(/^# pass (\d+)$/m), failed: count(/^# fail (\d+)$/m) + count(/^# cancelled (\d+)$/m) };
}

function unittest(count) {
  const failed = count(/failures=(\d+)/) + count(/errors=(\d+)/);
  // A test with several cases can fail several times.
  return { passed: Math.max(0, count(/^Ran (\d+) tests?/m) - failed), failed };
}
