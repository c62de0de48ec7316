// Keycloak's production start: a realm from a file, its discovery document, tokens for clients with their secret, health on the management port.
import { readdirSync, readFileSync } from "node:fs";
import { fail, login, serve, until, wanted } from "./common.mjs";

const words = process.argv.slice(2);
if (words[0] !== "start") fail("only start is production");
const [home, url, user, password] = wanted("KC_HOSTNAME", "KC_DB_URL", "KC_DB_USERNAME", "KC_DB_PASSWORD", "KC_BOOTSTRAP_ADMIN_PASSWORD");
if (process.env.KC_HTTP_ENABLED !== "true" || process.env.KC_PROXY_HEADERS !== "xforwarded") fail("neither TLS nor a proxy is configured");
const [, host, database] = url.match(/^jdbc:postgresql:\/\/([^:/]+):5432\/(\w+)$/) ?? fail("KC_DB_URL is none");

const place = "/opt/keycloak/data/import";
const files = words.includes("--import-realm") ? readdirSync(place).filter((name) => name.endsWith(".json")) : [];
const realms = Object.fromEntries(files.map((name) => JSON.parse(readFileSync(`${place}/${name}`, "utf8"))).map((realm) => [realm.realm, realm]));
let ready = false;

serve(8080, (method, path, body) => {
  const [, name, rest] = path.match(/^\/realms\/([^/]+)\/(.*)$/) ?? [];
  const realm = realms[name];
  if (!ready || !realm) return [404, { error: "Realm does not exist" }];
  const issuer = `${home}/realms/${name}`;
  if (rest === ".well-known/openid-configuration") return [200, { issuer, token_endpoint: `${issuer}/protocol/openid-connect/token` }];
  if (method === "POST" && rest === "protocol/openid-connect/token") {
    const given = new URLSearchParams(body);
    const client = realm.clients.find((known) => known.clientId === given.get("client_id") && !known.publicClient);
    if (client && client.serviceAccountsEnabled && client.secret === given.get("client_secret")) return [200, { access_token: "stand-in" }];
    return [401, { error: "invalid_client" }];
  }
  return [404, {}];
});
if (process.env.KC_HEALTH_ENABLED === "true") {
  serve(9000, (_method, path) => (path === "/health/ready" ? [ready ? 200 : 503, { status: ready ? "UP" : "DOWN" }] : [404, {}]));
}
await until("the database", () => login(host, user, password, database));
ready = true;
