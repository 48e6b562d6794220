// What the suites need beside Node: the clients from npm and PyPI, and a browser. Each is fetched where it is missing,
// into folders that git ignores; what is there already, as the lists say it, is not fetched again.
//
// A need is *met*, or there is a reason why not. That a registry cannot be reached, is slow or lacks a package is such a
// reason. A fault in our own lists is none: it throws.

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));

/** A registry that has not delivered after so long counts as one that does not. */
const FETCH_MS = 240_000;

const npm = {
  folder: "node_modules",
  lists: ["package.json", "package-lock.json"],
  command: ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1", "--fetch-timeout=20000"],
  // The lists do not agree; a package is not what the list says.
  ours: /\b(EUSAGE|EINTEGRITY|EJSONPARSE)\b/,
};

const pypi = {
  folder: ".python",
  lists: ["python/requirements.txt"],
  command: ["python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts", "--root-user-action=ignore",
    "--retries=1", "--timeout=20", "--upgrade", "--target=.python", "--requirement=python/requirements.txt"],
  ours: /ResolutionImpossible|InvalidRequirement|DO NOT MATCH THE HASHES/,
};

const means = {
  npm: () => fetched(npm),
  pypi: async () => (has("python3", "-m", "pip") ? fetched(pypi) : "there is no python3 with pip here"),
  chromium: async () => (chromium() ? null : "there is no Chromium here"),
};

/** Those of `needs` that are not met, with the reason why. */
export async function unmet(needs) {
  const reasons = await Promise.all(needs.map(async (need) => [need, await means[need]()]));
  return new Map(reasons.filter(([, reason]) => reason));
}

/** The browser's program, if there is one. */
export function chromium() {
  return [process.env.CHROMIUM, "chromium", "chromium-browser", "google-chrome"].filter(Boolean).find((name) => has(name));
}

const has = (program, ...args) => spawnSync(program, [...args, "--version"]).status === 0;

async function fetched({ folder, lists, command, ours }) {
  const stamp = path.join(here, folder, ".fetched");
  const wanted = createHash("sha256").update(process.arch);
  for (const list of lists) wanted.update(readFileSync(path.join(here, list)));
  const wish = wanted.digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wish) return null;
  const [program, ...args] = command;
  const fetching = spawn(program, args, { cwd: here, stdio: ["ignore", "pipe", "pipe"], timeout: FETCH_MS });
  let said = "";
  for (const stream of [fetching.stdout, fetching.stderr]) stream.setEncoding("utf8").on("data", (text) => (said += text));
  const [status] = await once(fetching, "close");
  if (status === 0) {
    writeFileSync(stamp, wish);
    return null;
  }
  if (ours.test(said)) throw new Error(`${command.join(" ")}: ${said}`);
  if (status === null) return `${program} had not fetched its packages after ${FETCH_MS / 1000} s`;
  const reason = said.split("\n").filter((line) => /^(npm )?error/i.test(line)).slice(0, 2).join("; ");
  return `${program} cannot fetch its packages: ${reason.slice(0, 300) || `it ended with ${status}`}`;
}
