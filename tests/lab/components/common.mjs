// What the stand-ins share: they fail as the real ones would where something is missing.
import { execFile } from "node:child_process";
import { createServer } from "node:http";

export function fail(words) {
  console.error(words);
  process.exit(1);
}

export function wanted(...names) {
  for (const name of names) if (!process.env[name]) fail(`${name} is missing`);
  return names.map((name) => process.env[name]);
}

// Whether PostgreSQL takes the login.
export function login(host, user, password, database) {
  const env = { PATH: process.env.PATH, PGPASSWORD: password, PGCONNECT_TIMEOUT: "3" };
  return new Promise((resolve) => execFile("psql", ["-XAtqc", "SELECT 1", "-h", host, "-U", user, "-d", database], { env }, (error) => resolve(!error)));
}

export async function until(what, ask, seconds = 60) {
  for (let left = seconds; left > 0; left -= 1) {
    if (await ask()) return;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  fail(`${what}: no answer within ${seconds} s`);
}

// answer: (method, path, body, headers) => [status, value]
export function serve(port, answer) {
  createServer((request, response) => {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", async () => {
      const [status, value] = await answer(request.method, request.url, Buffer.concat(parts).toString(), request.headers);
      const text = typeof value === "string" ? value : JSON.stringify(value ?? {});
      response.writeHead(status, { "content-type": typeof value === "string" ? "text/plain" : "application/json" });
      response.end(request.method === "HEAD" ? "" : text);
    });
  }).listen(port, "0.0.0.0", () => console.log(`listens on ${port}`));
}

for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(0));
