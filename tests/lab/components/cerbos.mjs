// Cerbos: compile a directory, serve it, ask after its health.
import { readdirSync, readFileSync } from "node:fs";
import { fail, serve } from "./common.mjs";

const [word, ...rest] = process.argv.slice(2);
const option = (name) => rest.find((part) => part.startsWith(`--${name}=`))?.split("=")[1];
const policies = (place) => readdirSync(place, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
const settings = () => {
  const text = readFileSync(option("config") ?? fail("no --config"), "utf8");
  const found = (key) => text.match(new RegExp(`^\\s*${key}:\\s*"?:?([^"\\n]+)"?$`, "m"))?.[1];
  return { port: Number(found("httpListenAddr")), place: found("directory"), admin: /adminAPI:\s*enabled: true/.test(text) };
};

if (word === "compile") {
  const found = policies(rest[0]).filter((entry) => entry.name.endsWith(".yaml"));
  const wrong = found.filter((entry) => !/^(apiVersion: api\.cerbos\.dev\/v1|name: )/.test(readFileSync(`${entry.parentPath ?? entry.path}/${entry.name}`, "utf8")));
  if (!found.length) fail("no policies");
  for (const entry of wrong) console.error(`${entry.name}: not a valid policy`);
  process.exit(wrong.length ? 3 : 0);
} else if (word === "healthcheck") {
  fetch(`http://127.0.0.1:${settings().port}/_cerbos/health`).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1));
} else if (word === "server") {
  const { port, place, admin } = settings();
  if (admin) fail("the admin API is on");
  const names = policies(place).map((entry) => entry.name).sort();
  serve(port, (_method, path) => (path === "/_cerbos/health" ? [200, { status: "SERVING" }] : path === "/stand-in" ? [200, names] : [404, {}]));
} else {
  fail(`unknown command ${word}`);
}
