// Posts every example payload that GitHub's own examples have, for github.com and each Enterprise Server, signed by an
// implementation that isn't ours, and checks that rollcall takes each and comes to an outcome that isn't a complaint.
//
// Usage: node conformance.mjs ROLLCALL FOLDER

import { spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { sign } from "@octokit/webhooks-methods";

const [rollcall, folder] = process.argv.slice(2);
const EXAMPLES = path.join(folder, "node_modules/@octokit/webhooks-examples");

// What a delivery may end as. `waiting` is usual: the platform's stand-in knows none of these accounts.
const OUTCOMES = ["applied", "unchanged", "superseded", "ignored", "waiting"];
// Every so many-th payload is posted as a form too.
const FORM_EVERY = 10;
const SETTLED_WITHIN_MS = 120_000;

const secret = randomBytes(24).toString("hex");
const environment = { ...process.env, CONFORMANCE_SECRET: secret, CONFORMANCE_KEY: randomBytes(24).toString("hex") };
const processes = [];
let passed = 0;
const failures = [];

function check(ok, complaint) {
  if (ok) passed += 1;
  else failures.push(complaint);
}

async function freePort() {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

function start(...parameters) {
  const child = spawn(rollcall, parameters, { env: environment, stdio: ["ignore", "ignore", "pipe"] });
  const started = { child, log: "", ended: once(child, "exit") };
  child.stderr.on("data", (text) => (started.log = (started.log + text).slice(-10_000)));
  child.on("error", (error) => (started.log += error));
  processes.push(started);
  return started;
}

async function until(what, limit, condition) {
  const deadline = Date.now() + limit;
  for (;;) {
    const dead = processes.find(({ child }) => child.exitCode !== null || child.signalCode !== null);
    if (dead) throw new Error(`${dead.child.spawnargs.slice(1, 2)} ended too early:\n${dead.log}`);
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await wait(100);
  }
}

async function answers(url) {
  try {
    const response = await fetch(url);
    await response.arrayBuffer();
    return response.status < 500;
  } catch {
    return false;
  }
}

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
  const lines = [
    `data_dir = ${JSON.stringify(path.join(directory, "data"))}`,
    `[ingress]`,
    `listen = "127.0.0.1:${ports.ingress}"`,
    `[admin]`,
    `listen = "127.0.0.1:${ports.admin}"`,
    `[drata]`,
    `base_url = "http://127.0.0.1:${ports.sandbox}/public"`,
    `api_key = { env = "CONFORMANCE_KEY" }`,
    `[log]`,
    `filter = "warn"`,
  ];
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

// Runs the jobs, a few at a time.
async function inParallel(jobs, width = 8) {
  const queue = jobs.values();
  await Promise.all(Array.from({ length: width }, async () => {
    for (const job of queue) await job();
  }));
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

async function deliveries(config) {
  const child = spawn(rollcall, ["deliveries", "--json", "--limit", "100000", "--config", config], {
    env: environment,
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (part) => (text += part));
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`rollcall deliveries ended with ${code}`);
  return JSON.parse(text);
}

function judge(version, accepted, rows) {
  const outcomes = {};
  const found = new Map(rows.map((row) => [row.delivery, row]));
  for (const [id, event] of accepted) {
    const { outcome, reason } = found.get(id);
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    check(OUTCOMES.includes(outcome), `${version} ${event} (${id}): ${outcome}: ${reason}`);
  }
  return outcomes;
}

async function main(directory) {
  const versions = await readExamples();
  const ports = { ingress: await freePort(), admin: await freePort(), sandbox: await freePort() };
  const config = path.join(directory, "rollcall.toml");
  await writeFile(config, configuration(versions, directory, ports));
  start("sandbox", "--listen", `127.0.0.1:${ports.sandbox}`);
  await until("the sandbox answers", 30_000, () => answers(`http://127.0.0.1:${ports.sandbox}/_sandbox/requests`));
  start("serve", "--config", config);
  await until("rollcall is ready", 30_000, () => answers(`http://127.0.0.1:${ports.admin}/ready`));

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

const directory = await mkdtemp(path.join(folder, "run-"));
try {
  await main(directory);
} catch (error) {
  failures.push(String(error.message ?? error));
} finally {
  for (const { child } of processes) child.kill("SIGTERM");
  const grace = wait(15_000).then(() => processes.forEach(({ child }) => child.kill("SIGKILL")));
  await Promise.race([Promise.all(processes.map(({ ended }) => ended.catch(() => {}))), grace]);
  await rm(directory, { recursive: true, force: true });
}
for (const failure of failures) console.log(`FAILED: ${failure}`);
console.log(`${passed} passed, ${failures.length} failed`);
process.exit(failures.length === 0 ? 0 : 1);
