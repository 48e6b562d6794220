// The bookshop: the tenant whose rows the clients of `/rest/v1` read and write.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

export const url = process.env.TENANT_URL;
export const token = process.env.TENANT_TOKEN;

const seed = await readFile(new URL("../bookshop/seed.sql", import.meta.url), "utf8");

/** Every table as the seed has it. */
export async function reset() {
  const answer = await fetch(`${url}/v1/sql`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
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
