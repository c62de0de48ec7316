// An S3 server in the words of SeaweedFS: identities from a file, signatures of version 4, actions by bucket.
import { createHash, createHmac } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fail, serve } from "./common.mjs";

const words = process.argv.slice(2);
const option = (name) => words.find((word) => word.startsWith(`-${name}=`))?.slice(name.length + 2) ?? fail(`no -${name}`);
if (words[0] !== "server" || !words.includes("-s3")) fail("only server -s3");
if (option("ip.bind") !== "127.0.0.1") fail("master, volume and filer are open");
const { identities } = JSON.parse(readFileSync(option("s3.config"), "utf8"));
const sha256 = (text) => createHash("sha256").update(text).digest("hex");
const hmac = (key, text) => createHmac("sha256", key).update(text).digest();

function caller(method, path, body, headers) {
  const parts = (headers.authorization ?? "").match(/Credential=([^/]+)\/(\d+)\/([^/]+)\/s3\/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]+)$/);
  const known = parts && identities.flatMap((who) => who.credentials.map((key) => ({ ...who, ...key }))).find((key) => key.accessKey === parts[1]);
  if (!known || headers["x-amz-content-sha256"] !== sha256(body)) return null;
  const [, , day, region, signed, signature] = parts;
  const canonical = [method, path, "", ...signed.split(";").map((name) => `${name}:${headers[name]}`), "", signed, sha256(body)].join("\n");
  let key = hmac(`AWS4${known.secretKey}`, day);
  for (const part of [region, "s3", "aws4_request"]) key = hmac(key, part);
  const text = ["AWS4-HMAC-SHA256", headers["x-amz-date"], `${day}/${region}/s3/aws4_request`, sha256(canonical)].join("\n");
  return hmac(key, text).toString("hex") === signature ? known : null;
}

serve(Number(option("s3.port")), (method, url, body, headers) => {
  const path = url.split("?")[0];
  const [bucket, ...rest] = path.slice(1).split("/");
  const object = rest.join("/");
  const who = caller(method, path, body, headers);
  const may = (action) => who?.actions.some((known) => known === "Admin" || known === `${action}:${bucket}`);
  if (!who) return [403, "AccessDenied"];
  const place = `/data/${sha256(bucket)}`;
  const file = `${place}/${sha256(object)}`;
  if (!object && method === "PUT") return may("Admin") ? (mkdirSync(place, { recursive: true }), [200, ""]) : [403, "AccessDenied"];
  if (!may(method === "GET" || method === "HEAD" ? "Read" : "Write")) return [403, "AccessDenied"];
  if (!existsSync(place)) return [404, "NoSuchBucket"];
  if (!object) return [200, ""];
  if (method === "PUT") return writeFileSync(file, body), [200, ""];
  if (method === "DELETE") return rmSync(file, { force: true }), [204, ""];
  return existsSync(file) ? [200, readFileSync(file, "utf8")] : [404, "NoSuchKey"];
});
