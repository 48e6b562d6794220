// Uses the board's page as a person would, and reports what was on it.

const report = (seen) => fetch("report", { method: "POST", body: JSON.stringify(seen) });
addEventListener("error", ({ message }) => report({ failed: message }));
addEventListener("unhandledrejection", ({ reason }) => report({ failed: String(reason) }));

/** Resolves when the page has changed so that `look` finds something: to what it found. */
const shown = (look) =>
  new Promise((resolve) => {
    const observer = new MutationObserver(again);
    function again() {
      const found = look();
      if (!found) return;
      observer.disconnect();
      resolve(found);
    }
    observer.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
    again();
  });

const text = (selector) => document.querySelector(selector).textContent;
const task = (title) => [...document.querySelectorAll("li")].find((row) => row.textContent === title);
const alerted = () => text("[role=alert]");
const add = (title) => {
  document.forms.add.title.value = title;
  document.forms.add.requestSubmit();
};

async function use() {
  const seen = {};
  await shown(() => text("#count") || alerted());
  seen.first = document.body.innerText;
  seen.count = text("#count");
  if (seen.count) {
    add("Added in a browser");
    seen.added = await shown(() => (task("Added in a browser") ? "the task" : alerted()));
    task("Added in a browser")?.click();
    if (seen.added === "the task") seen.done = await shown(() => task("Added in a browser").className === "done" || alerted());
    add("");
    seen.refused = await shown(alerted);
    const given = new URLSearchParams(location.hash.slice(1));
    const headers = { authorization: `Bearer ${given.get("token")}`, prefer: "count=exact", range: "0-0" };
    const answer = await fetch(`${given.get("url")}/rest/v1/projects?select=id`, { headers });
    seen.range = [answer.status, answer.headers.get("content-range")];
  }
  seen.last = document.body.innerText;
  await report(seen);
}

use();
