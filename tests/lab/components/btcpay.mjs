// BTCPay Server, NBXplorer and a Bitcoin node, as far as they look for each other.
import { existsSync, writeFileSync } from "node:fs";
import { fail, login, serve, until, wanted } from "./common.mjs";

const reach = (url) => fetch(url).then((answer) => answer.ok, () => false);
const database = (text) => {
  const told = Object.fromEntries(text.split(";").map((part) => part.split("=")));
  // Both make their own databases.
  return () => login(told.Host, told["User ID"], told.Password, "postgres");
};

const roles = {
  async bitcoind() {
    const [, extra] = wanted("BITCOIN_NETWORK", "BITCOIN_EXTRA_ARGS");
    if (!/^prune=\d+$/m.test(extra)) fail("the whole chain does not fit");
    writeFileSync("/data/.cookie", "cookie");
    serve(Number(extra.match(/^rpcport=(\d+)$/m)[1]), () => [200, {}]);
  },
  async nbxplorer() {
    const [text, node] = wanted("NBXPLORER_POSTGRES", "NBXPLORER_BTCRPCURL", "NBXPLORER_NETWORK", "NBXPLORER_CHAINS");
    await until("the database", database(text));
    await until("the node", () => existsSync("/root/.bitcoin/.cookie") && reach(node));
    writeFileSync("/datadir/.cookie", "cookie");
    serve(32838, () => [200, {}]);
  },
  async btcpay() {
    const [text, , explorer, bind] = wanted("BTCPAY_POSTGRES", "BTCPAY_EXPLORERPOSTGRES", "BTCPAY_BTCEXPLORERURL", "BTCPAY_BIND", "BTCPAY_NETWORK");
    await until("the database", database(text));
    await until("the explorer", () => existsSync("/root/.nbxplorer/.cookie") && reach(explorer));
    serve(Number(bind.split(":")[1]), (_method, path) => (path === "/api/v1/health" ? [200, { synchronized: true }] : [404, {}]));
  },
};
await roles[process.argv[2]]();
