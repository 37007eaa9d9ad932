// Posts every example payload that GitHub's own examples have, for github.com and each Enterprise Server, signed by an
// implementation that isn't ours, and checks that rollcall takes each and comes to an outcome that isn't a complaint.
//
// Usage: node conformance.mjs ROLLCALL FOLDER

import { randomBytes, randomUUID } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { sign } from "@octokit/webhooks-methods";
import { check, conclude, deliveries, environment, folder, freePorts, head, inParallel, judge, serve, until } from "./site.mjs";

const EXAMPLES = path.join(folder, "node_modules/@octokit/webhooks-examples");

// Every so many-th payload is posted as a form too.
const FORM_EVERY = 10;
const SETTLED_WITHIN_MS = 120_000;

const secret = randomBytes(24).toString("hex");
environment.CONFORMANCE_SECRET = secret;

async function readExamples() {
  const versions = (await readdir(EXAMPLES, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  const read = versions.map(async ({ name }) => {
    const events = JSON.parse(await readFile(path.join(EXAMPLES, name, "index.json"), "utf8"));
    const payloads = events.flatMap((event) =>
      event.examples.map((example) => ({ event: event.name, json: JSON.stringify(example) })),
    );
    const cloud = name === "api.github.com";
    return { version: name, source: name.replaceAll(".", "-"), host: cloud ? "github.com" : `${name}.example`, payloads };
  });
  return Promise.all(read);
}

function configuration(versions, directory, ports) {
  const lines = head(directory, ports);
  for (const { source, host } of versions) {
    lines.push(
      `[[source]]`,
      `name = "${source}"`,
      `provider = "github"`,
      `host = "${host}"`,
      `secrets = [{ env = "CONFORMANCE_SECRET" }]`,
      `on_access_lost = "unlink"`,
      `drata_connection = 12`,
    );
  }
  return lines.join("\n") + "\n";
}

async function post(url, event, body, type, signedBody = body) {
  const response = await fetch(url, {
    method: "POST",
    body,
    headers: {
      "content-type": type,
      "user-agent": "GitHub-Hookshot/conformance",
      "x-github-delivery": randomUUID(),
      "x-github-event": event,
      "x-hub-signature-256": await sign(secret, signedBody),
    },
  });
  return { status: response.status, answer: await response.json() };
}

async function postAll(base, { version, source, payloads }) {
  const url = `${base}/webhooks/${source}`;
  const accepted = new Map();
  const one = async (event, body, type) => {
    const { status, answer } = await post(url, event, body, type);
    const expected = event === "ping" ? [200, "pong"] : [202, "accepted"];
    check(
      status === expected[0] && answer.status === expected[1],
      `${version} ${event} (${type}): ${status} ${JSON.stringify(answer)}`,
    );
    if (status === 202) accepted.set(answer.delivery, event);
  };
  await inParallel(payloads.map(({ event, json }) => () => one(event, json, "application/json")));
  const asForm = payloads.filter((_, index) => index % FORM_EVERY === 0);
  await inParallel(asForm.map(({ event, json }) => () =>
    one(event, `payload=${encodeURIComponent(json)}`, "application/x-www-form-urlencoded"),
  ));
  for (const { event, json } of payloads.slice(0, 3)) {
    const { status } = await post(url, event, json, "application/json", `${json} `);
    check(status === 401, `${version} ${event} with a wrong signature: ${status} instead of 401`);
  }
  return { posted: payloads.length + asForm.length, accepted };
}

async function main(directory) {
  const versions = await readExamples();
  const ports = await freePorts();
  const config = path.join(directory, "rollcall.toml");
  await writeFile(config, configuration(versions, directory, ports));
  await serve(config, ports);

  const results = [];
  for (const version of versions) {
    results.push({ ...version, ...(await postAll(`http://127.0.0.1:${ports.ingress}`, version)) });
  }
  const settled = await until("every delivery has an outcome", SETTLED_WITHIN_MS, async () => {
    const rows = await deliveries(config);
    const done = new Set(rows.filter(({ outcome }) => outcome !== "pending").map(({ delivery }) => delivery));
    return results.every(({ accepted }) => [...accepted.keys()].every((id) => done.has(id))) && rows;
  });

  console.log(`${"version".padEnd(16)}${"payloads".padStart(9)}${"posted".padStart(8)}${"accepted".padStart(10)}  outcomes`);
  for (const { version, source, payloads, posted, accepted } of results) {
    const outcomes = judge(version, accepted, settled.filter((row) => row.source === source));
    const shown = Object.entries(outcomes).sort().map(([outcome, count]) => `${count} ${outcome}`).join(", ");
    const columns = [[payloads.length, 9], [posted, 8], [accepted.size, 10]];
    console.log(version.padEnd(16) + columns.map(([n, width]) => String(n).padStart(width)).join("") + `  ${shown}`);
  }
}

await conclude(main);
