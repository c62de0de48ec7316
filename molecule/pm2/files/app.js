// Says who serves, and what it may do to the host.
const fs = require("fs");
const http = require("http");
const os = require("os");

function attempt(action) {
  try {
    action();
    return "allowed";
  } catch (error) {
    return error.code;
  }
}

http
  .createServer((request, response) => {
    if (request.url === "/slow") {
      setTimeout(() => response.end("finished"), 3000);
      return;
    }
    response.setHeader("Content-Type", "application/json");
    response.end(
      JSON.stringify({
        uid: process.getuid(),
        release: __dirname,
        environment: Object.keys(process.env).sort(),
        ca: process.env.NODE_EXTRA_CA_CERTS,
        cpus: os.cpus().length,
        interfaces: Object.keys(os.networkInterfaces()).length,
        write: {
          release: attempt(() => fs.writeFileSync(`${__dirname}/written`, "x")),
          shared: attempt(() => fs.writeFileSync(`${__dirname}/../../shared/written`, "x")),
          etc: attempt(() => fs.writeFileSync("/etc/written", "x")),
          tmp: attempt(() => fs.writeFileSync("/tmp/written", "x")),
        },
        read: {
          shadow: attempt(() => fs.readFileSync("/etc/shadow")),
          other: attempt(() => fs.readdirSync("/opt/blog")),
          root: attempt(() => fs.readdirSync("/root")),
        },
      }),
    );
  })
  .listen(Number(process.env.PORT), process.env.HOST);

// As a shop does: what was begun is finished, then the process ends.
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => setTimeout(() => process.exit(0), 3500));
}
