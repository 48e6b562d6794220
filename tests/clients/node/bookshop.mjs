// The bookshop: the tenant whose rows the clients of `/rest/v1` read and write.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

export const url = process.env.TENANT_URL;
export const token = process.env.TENANT_TOKEN;

/** Whose the token is: the tenant's back end (`service`), or a person, beside whose rows there are hidden ones. */
export const isService = process.env.TENANT_ROLE === "service";

const scripts = isService ? ["seed"] : ["seed", "hidden"];
const seed = (await Promise.all(scripts.map((name) => readFile(new URL(`../bookshop/${name}.sql`, import.meta.url), "utf8")))).join("");

/** Every table as the seed has it. */
export async function reset() {
  const answer = await fetch(`${url}/v1/sql`, {
    method: "POST",
    headers: { authorization: `Bearer ${process.env.TENANT_SERVICE_TOKEN}`, "content-type": "application/json" },
    body: JSON.stringify({ script: seed }),
  });
  assert.equal(answer.status, 200, await answer.text());
}

/** What came back without an error. */
export async function data(query) {
  const answer = await query;
  assert.equal(answer.error, null, JSON.stringify(answer.error));
  return answer.data;
}

/** The one column of the rows. */
export const column = async (query) => (await data(query)).map((row) => Object.values(row)[0]);

/** An answer that is this refusal: a status and a code, and nothing of data. */
export async function refused(query, status, code) {
  const answer = await query;
  assert.deepEqual([answer.status, answer.error?.code, answer.data], [status, code, null], JSON.stringify(answer));
  for (const field of ["message", "details", "hint"]) assert.ok(field in answer.error, `an error without ${field}`);
  return answer.error;
}

/** The refusal of a table that is not there. A person does not learn that: it may as well be one that is closed. */
export const unknownTable = isService ? [404, "PGRST205"] : [403, "42501"];
