// The tenant that a suite runs against: the runner gives each suite one of its own.

import { createClient } from "@libsql/client";

export const url = process.env.TENANT_URL;
export const authToken = process.env.TENANT_TOKEN;
export const isSocket = url.startsWith("ws");

/** A client of `@libsql/client` for the length of `use`. */
export async function withClient(use, options = {}) {
  const client = createClient({ url, authToken, ...options });
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

/** The test's own tables, made anew. */
export const fresh = (client, ...statements) =>
  client.batch(["DROP TABLE IF EXISTS t", "DROP TABLE IF EXISTS u", ...statements], "write");

export const rowsOf = (result) => result.rows.map((row) => Array.from(row));

/** For `assert.rejects`: an error of the client's with this code. */
export const coded = (code, message) => (error) => {
  if (error.code !== code) throw new Error(`code ${error.code} instead of ${code}: ${error.message}`);
  if (message && !message.test(error.message)) throw new Error(`not ${message}: ${error.message}`);
  return true;
};
