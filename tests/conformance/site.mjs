// What the conformance programs share: a rollcall and its stand-in for the platform, both the built binary, and a tally.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { setTimeout as wait } from "node:timers/promises";

export const [rollcall, folder] = process.argv.slice(2);

// What a delivery may end as. `waiting` is usual: the platform's stand-in knows none of these accounts.
const OUTCOMES = ["applied", "unchanged", "superseded", "ignored", "waiting"];

export const environment = { ...process.env, CONFORMANCE_KEY: randomBytes(24).toString("hex") };
const processes = [];
let passed = 0;
const failures = [];

export function check(ok, complaint) {
  if (ok) passed += 1;
  else failures.push(complaint);
}

export async function freePort() {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

export function start(...parameters) {
  const child = spawn(rollcall, parameters, { env: environment, stdio: ["ignore", "ignore", "pipe"] });
  const started = { child, log: "", ended: once(child, "exit") };
  child.stderr.on("data", (text) => (started.log = (started.log + text).slice(-10_000)));
  child.on("error", (error) => (started.log += error));
  processes.push(started);
  return started;
}

export async function until(what, limit, condition) {
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

export async function answers(url) {
  try {
    const response = await fetch(url);
    await response.arrayBuffer();
    return response.status < 500;
  } catch {
    return false;
  }
}

// Runs the jobs, a few at a time.
export async function inParallel(jobs, width = 8) {
  const queue = jobs.values();
  await Promise.all(Array.from({ length: width }, async () => {
    for (const job of queue) await job();
  }));
}

export async function deliveries(config) {
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

export function judge(version, accepted, rows) {
  const outcomes = {};
  const found = new Map(rows.map((row) => [row.delivery, row]));
  for (const [id, event] of accepted) {
    const { outcome, reason } = found.get(id);
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    check(OUTCOMES.includes(outcome), `${version} ${event} (${id}): ${outcome}: ${reason}`);
  }
  return outcomes;
}

// The head of a configuration: everything but its sources.
export function head(directory, ports) {
  return [
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
}

export async function freePorts() {
  return { ingress: await freePort(), admin: await freePort(), sandbox: await freePort() };
}

// Starts the stand-in and rollcall on these ports.
export async function serve(config, ports) {
  start("sandbox", "--listen", `127.0.0.1:${ports.sandbox}`);
  await until("the sandbox answers", 30_000, () => answers(`http://127.0.0.1:${ports.sandbox}/_sandbox/requests`));
  start("serve", "--config", config);
  await until("rollcall is ready", 30_000, () => answers(`http://127.0.0.1:${ports.admin}/ready`));
}

// Runs a program in a folder of its own, ends what it started, and exits with what came of it.
export async function conclude(main) {
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
}
