# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a real shop answers and holds: a login, what is in the store, the rows of every table. Runs on the host, as root; with "fill" it makes goods first."""

import json
import pathlib
import subprocess
import sys
import urllib.request

DOCUMENT = json.loads(pathlib.Path("/etc/anchorage/apps/shop.json").read_text(encoding="utf-8"))
NAMES = "SELECT string_agg(format('%I.%I', schemaname, tablename), ' ') FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"


def call(path, data=None, **headers):
    body = None if data is None else json.dumps(data).encode()
    told = {"Host": "shop.localhost", "Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1{path}", data=body, headers=told), timeout=60) as answer:
        return json.load(answer)


def sql(query):
    done = subprocess.run(["psql", "-XAtq", "-U", "postgres", "-h", "/var/run/postgresql", "shop", "-c", query], capture_output=True, text=True, check=True)
    return done.stdout.strip()


login = {"email": DOCUMENT["admin"]["email"], "password": DOCUMENT["admin_password"]}
authorized = {"Authorization": f"Bearer {call('/auth/user/emailpass', login)['token']}"}
if "fill" in sys.argv:
    for number in range(15):
        price = {"amount": 10 + number, "currency_code": "eur"}
        variant = {"title": "M", "options": {"Size": "M"}, "prices": [price]}
        goods = {"title": f"Shirt {number}", "status": "published", "options": [{"title": "Size", "values": ["M"]}], "variants": [variant]}
        call("/admin/products", goods, **authorized)
        call("/admin/customers", {"email": f"customer-{number}@example.com"}, **authorized)
key = sql("SELECT token FROM api_key WHERE type = 'publishable' LIMIT 1")
tables = sql(NAMES).split()
found = {
    "products": call("/admin/products?limit=1", **authorized)["count"],
    "customers": call("/admin/customers?limit=1", **authorized)["count"],
    "regions": len(call("/store/regions", x_publishable_api_key=key)["regions"]),
    # Each look signs in, which writes into no table of the shop's own.
    "rows": {table: int(sql(f"SELECT count(*) FROM {table}")) for table in sorted(tables) if not table.endswith((".pulse", ".beat"))},
}
print(json.dumps(found, sort_keys=True))
