// Signers that aren't ours against rollcall, both ways: what they sign is accepted and what they didn't is refused, and
// what `rollcall send` signs they verify. Standard Webhooks' own JavaScript for GitLab's signing token and other senders,
// GitHub's for GitHub, Node's HMAC for those who publish no library. And GitLab's published payloads, none of which may
// be a complaint.
//
// Usage: node signers.mjs ROLLCALL FOLDER

import { spawn } from "node:child_process";
import { createHmac, randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { sign, verify } from "@octokit/webhooks-methods";
import { Webhook } from "standardwebhooks";
import { check, conclude, deliveries, environment, folder, freePorts, head, inParallel, judge, rollcall, serve, until } from "./site.mjs";

const GITLAB = path.join(folder, "gitlab/usr/share/gocode/src/github.com/xanzy/go-gitlab/testdata");
const ROUNDS = 25;

const plain = randomBytes(24).toString("hex");
const whsec = `whsec_${randomBytes(32).toString("base64")}`;
const standard = new Webhook(whsec);
environment.CONFORMANCE_PLAIN = plain;
environment.CONFORMANCE_WHSEC = whsec;

const hmac = (body) => createHmac("sha256", plain).update(body).digest("hex");

// The same for GitLab's signing token and any other sender of Standard Webhooks.
const byStandard = {
  secret: "CONFORMANCE_WHSEC",
  headers: (id, body, at = new Date()) => ({
    "webhook-id": id,
    "webhook-timestamp": String(Math.floor(at / 1000)),
    "webhook-signature": standard.sign(id, at, body),
  }),
  verifies: (headers, body) => {
    standard.verify(body, headers, { jsonParse: false });
    return true;
  },
};

function byHmac(header, prefix, rest) {
  return {
    secret: "CONFORMANCE_PLAIN",
    headers: (id, body) => ({ [header]: `${prefix}${hmac(body)}`, ...rest(id) }),
    verifies: (headers, body) => headers[header] === `${prefix}${hmac(body)}`,
  };
}

// Each source: its table, who signs for it, what is sent, and what `rollcall send` is told.
const SOURCES = {
  gitlab: {
    table: ['provider = "gitlab"', 'verify = "signature"', 'scopes = ["group:#42"]'],
    body: { event_name: "user_add_to_group", user_id: 71, group_id: 42 },
    send: ["--verify", "signature", "--event", "user_add_to_group"],
    ...byStandard,
  },
  "standard-webhooks": {
    table: ['provider = "standard-webhooks"', 'host = "git.larkspur.example"', "drata_connection = 12"],
    body: { type: "member.added" },
    send: ["--event", "member.added"],
    ...byStandard,
  },
  github: {
    table: ['provider = "github"'],
    body: { zen: "Plant early." },
    send: ["--event", "push"],
    secret: "CONFORMANCE_PLAIN",
    headers: async (id, body) => ({
      "x-github-event": "status", "x-github-delivery": id, "x-hub-signature-256": await sign(plain, body),
    }),
    verifies: (headers, body) => verify(plain, body, headers["x-hub-signature-256"]),
  },
  "bitbucket-cloud": {
    table: ['provider = "bitbucket-cloud"'],
    body: { repository: {} },
    send: ["--event", "repo.push"],
    ...byHmac("x-hub-signature", "sha256=", (id) => ({ "x-event-key": "repo:fork", "x-request-uuid": id })),
  },
  "bitbucket-data-center": {
    table: ['provider = "bitbucket-data-center"', 'host = "git.larkspur.example"'],
    body: { eventKey: "repo:forked" },
    send: ["--event", "repo.refs_changed"],
    ...byHmac("x-hub-signature", "sha256=", (id) => ({ "x-event-key": "repo:forked", "x-request-id": id })),
  },
};
for (const name of ["gitea", "forgejo", "gogs"]) {
  SOURCES[name] = {
    table: [`provider = "${name}"`, 'host = "git.larkspur.example"'],
    body: { action: "opened", issue: {} },
    send: ["--event", "push"],
    ...byHmac(`x-${name}-signature`, "", (id) => ({ [`x-${name}-event`]: "issues", [`x-${name}-delivery`]: id })),
  };
}

async function post(url, headers, body) {
  const response = await fetch(url, { method: "POST", body, headers: { "content-type": "application/json", ...headers } });
  return { status: response.status, answer: await response.json() };
}

// What they sign is accepted; an altered body, signature, id or time isn't.
async function theirsAgainstOurs(base, name, source) {
  const url = `${base}/webhooks/${name}`;
  const expect = async (what, headers, body, expected) => {
    const { status, answer } = await post(url, headers, body);
    check(status === expected, `${name} ${what}: ${status} instead of ${expected}: ${JSON.stringify(answer)}`);
  };
  for (let round = 0; round < ROUNDS; round += 1) {
    const body = JSON.stringify({ ...source.body, filler: "ü\u2028\"\\".repeat(round), number: round });
    const id = randomUUID();
    const headers = await source.headers(id, body);
    await expect("well signed", headers, body, 202);
    await expect("with another body", headers, `${body} `, 401);
    const [mark] = Object.keys(headers).filter((header) => header.includes("signature"));
    const altered = headers[mark].replace(/[0-9a-f](?=[^,]*$)/i, (digit) => (digit === "0" ? "1" : "0"));
    await expect("with another signature", { ...headers, [mark]: altered }, body, 401);
  }
  if (source.headers !== byStandard.headers) return;
  const body = JSON.stringify(source.body);
  for (const [seconds, expected] of [[-290, 202], [290, 202], [-310, 401], [310, 401]]) {
    await expect(`${seconds} s away`, source.headers(randomUUID(), body, new Date(Date.now() + seconds * 1000)), body, expected);
  }
  await expect("under another id", { ...source.headers(randomUUID(), body), "webhook-id": "another" }, body, 401);
  const headers = source.headers(randomUUID(), body);
  const stranger = new Webhook(`whsec_${randomBytes(32).toString("base64")}`).sign(headers["webhook-id"], new Date(), body);
  await expect("with several signatures", { ...headers, "webhook-signature": `${stranger} ${headers["webhook-signature"]}` }, body, 202);
  await expect("with a stranger's", { ...headers, "webhook-signature": stranger }, body, 401);
}

// What `rollcall send` posts verifies with theirs, and altered it doesn't.
async function oursAgainstTheirs(name, source) {
  const received = [];
  const server = createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    received.push({ headers: request.headers, body: Buffer.concat(parts).toString("utf8") });
    response.end("{}");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${server.address().port}/webhooks/${name}`;
  const line = ["send", "--url", url, "--provider", name, "--secret-env", source.secret, ...source.send];
  const child = spawn(rollcall, line, { env: environment, stdio: ["ignore", "ignore", "inherit"] });
  const [code] = await once(child, "exit");
  server.close();
  check(code === 0 && received.length === 1, `${name}: rollcall send ended with ${code}`);
  for (const { headers, body } of received) {
    const good = async (text) => {
      try {
        return await source.verifies(headers, text);
      } catch {
        return false;
      }
    };
    check(await good(body), `${name}: what rollcall send signed isn't good to ${source.secret}'s verifier`);
    check(!(await good(`${body} `)), `${name}: a changed body is good to it all the same`);
  }
}

// GitLab's published payloads of system hooks and webhooks, by the plain token.
async function published(base) {
  const accepted = new Map();
  for (const kind of ["systemhooks", "webhooks"]) {
    const files = (await readdir(path.join(GITLAB, kind))).filter((file) => file.endsWith(".json"));
    check(files.length > 10, `there are only ${files.length} payloads of ${kind}`);
    await inParallel(files.map((file) => async () => {
      const body = await readFile(path.join(GITLAB, kind, file), "utf8");
      const headers = { "x-gitlab-token": plain, "x-gitlab-event": "System Hook", "idempotency-key": randomUUID() };
      const { status, answer } = await post(`${base}/webhooks/published`, headers, body);
      check(status === 202, `${kind}/${file}: ${status} ${JSON.stringify(answer)}`);
      if (status === 202) accepted.set(answer.delivery, `${kind}/${file}`);
    }));
  }
  return accepted;
}

await conclude(async (directory) => {
  const ports = await freePorts();
  const config = path.join(directory, "rollcall.toml");
  const lines = head(directory, ports);
  const source = (name, secret, table) =>
    lines.push("[[source]]", `name = "${name}"`, `secrets = [{ env = "${secret}" }]`, 'on_access_lost = "unlink"', ...table);
  for (const [name, { secret, table }] of Object.entries(SOURCES)) source(name, secret, table);
  source("published", "CONFORMANCE_PLAIN", [
    'provider = "gitlab"', 'verify = "token"', 'scopes = ["instance"]', 'host = "git.larkspur.example"', "sightings = true",
  ]);
  await writeFile(config, lines.join("\n") + "\n");
  await serve(config, ports);

  const base = `http://127.0.0.1:${ports.ingress}`;
  for (const [name, source] of Object.entries(SOURCES)) {
    await theirsAgainstOurs(base, name, source);
    await oursAgainstTheirs(name, source);
  }
  const accepted = await published(base);
  const rows = await until("GitLab's payloads have outcomes", 60_000, async () => {
    const rows = (await deliveries(config)).filter((row) => row.source === "published");
    return rows.length === accepted.size && rows.every(({ outcome }) => outcome !== "pending") && rows;
  });
  const outcomes = judge("gitlab", accepted, rows);
  console.log(`gitlab          ${accepted.size} payloads: ${Object.entries(outcomes).map(([word, n]) => `${n} ${word}`).join(", ")}`);
});
