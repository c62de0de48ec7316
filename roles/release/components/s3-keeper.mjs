// Managed by anchorage.vps
// Makes the bucket where it is missing, then proves with the app's own key that an object can be written, read and removed, and that nobody
// without a key can read it. Signed as Signature Version 4, with what Node itself has, so that any S3 server can be asked.
import { createHash, createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { request } from "node:http";

const told = JSON.parse(readFileSync(process.argv[2] ?? "/etc/anchorage/keeper.json", "utf8"));
const sha256 = (text) => createHash("sha256").update(text).digest("hex");
const hmac = (key, text) => createHmac("sha256", key).update(text).digest();

function signed(method, path, body, who) {
  const stamp = new Date().toISOString().replace(/[-:]|\.\d{3}/g, "");
  const day = stamp.slice(0, 8);
  const headers = { host: `${told.host}:${told.port}`, "x-amz-content-sha256": sha256(body), "x-amz-date": stamp };
  const names = Object.keys(headers).sort();
  const canonical = [method, path, "", ...names.map((name) => `${name}:${headers[name]}`), "", names.join(";"), sha256(body)].join("\n");
  const scope = `${day}/${told.region}/s3/aws4_request`;
  const key = ["s3", "aws4_request"].reduce(hmac, hmac(hmac(`AWS4${who.secret}`, day), told.region));
  const signature = hmac(key, ["AWS4-HMAC-SHA256", stamp, scope, sha256(canonical)].join("\n")).toString("hex");
  headers.authorization = `AWS4-HMAC-SHA256 Credential=${who.id}/${scope}, SignedHeaders=${names.join(";")}, Signature=${signature}`;
  return headers;
}

function ask(method, path, { who = null, body = "" } = {}) {
  const headers = { ...(who ? signed(method, path, body, who) : {}), "content-length": Buffer.byteLength(body) };
  return new Promise((resolve, reject) => {
    const asked = request({ host: told.host, port: told.port, method, path, headers, timeout: 5000 }, (answer) => {
      let text = "";
      answer.on("data", (part) => (text += part));
      answer.on("end", () => resolve({ status: answer.statusCode, text }));
    });
    asked.on("timeout", () => asked.destroy(new Error("no answer within 5 s")));
    asked.on("error", reject);
    asked.end(body);
  });
}

async function wanted(what, statuses, answer) {
  const { status, text } = await answer;
  if (!statuses.includes(status)) throw new Error(`${what}: answered ${status}, wanted ${statuses.join(" or ")}`);
  return text;
}

const bucket = `/${told.bucket}`;
const object = `${bucket}/.anchorage-probe`;
const content = `anchorage ${new Date().toISOString()}`;
try {
  if ((await ask("HEAD", bucket, { who: told.admin })).status === 404) await wanted("bucket", [200], ask("PUT", bucket, { who: told.admin }));
  await wanted("put", [200], ask("PUT", object, { who: told.app, body: content }));
  if ((await wanted("get", [200], ask("GET", object, { who: told.app }))) !== content) throw new Error("get: another content than was put");
  await wanted("get without a key", [401, 403], ask("GET", object));
  await wanted("delete", [200, 204], ask("DELETE", object, { who: told.app }));
} catch (error) {
  console.error(`s3: ${error.message}`);
  process.exitCode = 1;
}
