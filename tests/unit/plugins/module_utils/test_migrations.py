# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.anchorage.vps.plugins.module_utils.migrations import Tables, is_migration, judge, judge_statement, pending, split, statements

BIG, SMALL = 1 << 30, 1 << 10
CONTRACT, HEAVY = "contract", "lock-heavy"

#: Migrations as people write them, and what is to be said of them where "orders" is large and "carts" is small.
CORPUS = [
    ("CREATE TABLE wishes (id text PRIMARY KEY, note text NOT NULL)", set()),
    ("create table if not exists wishes (id text, check (id in ('drop', 'truncate')))", set()),
    ("ALTER TABLE orders ADD COLUMN note text", set()),
    ("alter table if exists only public.orders add column if not exists note text null", set()),
    ("ALTER TABLE orders ADD note text NOT NULL DEFAULT 'DROP TABLE orders'", set()),
    ("ALTER TABLE orders ADD COLUMN at timestamptz NOT NULL DEFAULT now()", set()),
    ("ALTER TABLE orders ALTER COLUMN note DROP NOT NULL", set()),
    ("ALTER TABLE orders ALTER COLUMN note SET DEFAULT 'x'", set()),
    ("ALTER TABLE orders DROP CONSTRAINT IF EXISTS orders_note_check", set()),
    ("ALTER TABLE orders RENAME CONSTRAINT a TO b", set()),
    ("ALTER TABLE orders VALIDATE CONSTRAINT fk", set()),
    ("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON orders (note)", set()),
    ("CREATE INDEX i ON carts (note)", set()),
    ("DROP INDEX CONCURRENTLY i", set()),
    ("INSERT INTO orders (note) VALUES ('DELETE FROM orders; DROP TABLE orders')", set()),
    ("UPDATE orders SET note = 'a' WHERE id < 1000", set()),
    ("UPDATE carts SET note = 'a'", set()),
    ("ALTER TYPE status ADD VALUE 'open'", set()),
    ("DROP TABLE IF EXISTS never_there", set()),
    ("COMMENT ON TABLE orders IS 'drop table orders'", set()),
    ("REFRESH MATERIALIZED VIEW CONCURRENTLY orders", set()),
    ("DROP TABLE orders", {CONTRACT}),
    ('drop table if exists "carts" cascade', {CONTRACT}),
    ("DROP TABLE never_there, orders", {CONTRACT}),
    ("DROP TYPE status", {CONTRACT}),
    ("ALTER TABLE carts DROP COLUMN note", {CONTRACT}),
    ("ALTER TABLE carts ADD COLUMN a text, DROP note, ADD b text", {CONTRACT}),
    ("ALTER TABLE orders RENAME COLUMN note TO remark", {CONTRACT}),
    ("ALTER TABLE orders RENAME TO purchases", {CONTRACT}),
    ("ALTER TABLE carts ADD COLUMN note text NOT NULL", {CONTRACT}),
    ("ALTER TABLE carts ALTER COLUMN note SET NOT NULL", {CONTRACT}),
    ("ALTER TABLE orders ALTER COLUMN note TYPE integer USING (note::integer)", {CONTRACT, HEAVY}),
    ("ALTER TABLE orders ALTER note SET DATA TYPE varchar(5)", {CONTRACT, HEAVY}),
    ("ALTER TABLE orders ADD CONSTRAINT fk FOREIGN KEY (cart_id) REFERENCES carts (id)", {CONTRACT, HEAVY}),
    ("ALTER TABLE orders ADD CONSTRAINT c CHECK (total >= 0) NOT VALID", {CONTRACT}),
    ("CREATE UNIQUE INDEX CONCURRENTLY i ON orders (note)", {CONTRACT}),
    ("CREATE UNIQUE INDEX i ON orders (note)", {CONTRACT, HEAVY}),
    ("TRUNCATE TABLE orders", {CONTRACT}),
    ("DELETE FROM orders WHERE note IS NULL", set()),
    ("DELETE FROM orders", {CONTRACT}),
    ("WITH gone AS (DELETE FROM orders RETURNING *) INSERT INTO carts SELECT * FROM gone", {CONTRACT}),
    ("WITH gone AS (DELETE FROM orders WHERE id = '1') SELECT 1", set()),
    ("UPDATE orders SET note = (SELECT note FROM carts WHERE carts.id = orders.cart)", {HEAVY}),
    ("DO $$ BEGIN EXECUTE 'DROP TABLE orders'; END $$", {CONTRACT}),
    (
        "DO $$ BEGIN EXECUTE format('ALTER TABLE %I DROP COLUMN note', t); END $$",
        {
            CONTRACT,
        },
    ),
    ("DO 'BEGIN DROP TABLE orders; END'", {CONTRACT}),
    ("TRUNCATE gone, orders", {CONTRACT}),
    ("ALTER TABLE orders DETACH PARTITION orders_2025", {CONTRACT}),
    ("ALTER TYPE money DROP ATTRIBUTE currency", {CONTRACT}),
    ("DROP PROCEDURE tidy", {CONTRACT}),
    ("ALTER TABLE carts ENABLE ROW LEVEL SECURITY", {CONTRACT}),
    ('ALTER TABLE carts ADD COLUMN "default" text NOT NULL', {CONTRACT}),
    ("VACUUM (FULL, ANALYZE) orders", {HEAVY}),
    ("ALTER TABLE invoices DROP COLUMN total", {CONTRACT}),
    ("ALTER TABLE orders ADD COLUMN note text DEFAULT 'a, DROP id'", set()),
    ("ALTER TABLE orders ALTER COLUMN note TYPE text USING (note::text)", set()),
    ("ALTER TABLE orders ALTER COLUMN total SET DATA TYPE int", set()),
    ("ALTER TABLE orders ALTER COLUMN code TYPE text", set()),
    ("ALTER TABLE orders ALTER COLUMN total SET NOT NULL", set()),
    ("ALTER TABLE orders ALTER COLUMN note DROP DEFAULT", set()),
    ("ALTER TABLE orders ALTER COLUMN total DROP DEFAULT", {CONTRACT}),
    ("ALTER TABLE carts ADD CONSTRAINT carts_kind_check CHECK (kind IN ('a', 'b', 'new'))", set()),
    ("ALTER TABLE carts ADD CONSTRAINT carts_kind_check CHECK (kind IN ('a'))", {CONTRACT}),
    ("CREATE INDEX i ON public.orders USING gin (note)", {HEAVY}),
    ("UPDATE orders SET note = ''", {HEAVY}),
    ("ALTER TABLE orders ADD COLUMN token uuid NOT NULL DEFAULT gen_random_uuid()", {HEAVY}),
    ("ALTER TABLE orders ADD COLUMN n bigserial", {HEAVY}),
    ("REINDEX TABLE orders", {HEAVY}),
    ("VACUUM (FULL) orders", {HEAVY}),
    ("LOCK TABLE orders IN EXCLUSIVE MODE", {HEAVY}),
    ("ALTER TYPE status RENAME VALUE 'open' TO 'new'", {CONTRACT}),
    ("DO $$ BEGIN IF true THEN ALTER TABLE orders DROP COLUMN note; END IF; END $$", {CONTRACT}),
]


def in_use():
    columns = {"public.orders": {"note": ["text", False, False], "total": ["integer", True, True], "code": ["character varying(5)", False, False]}}
    rules = {("public.carts", "carts_kind_check"): "CHECK ((kind = ANY (ARRAY['a'::text, 'b'::text])))"}
    return Tables({"public.orders": BIG, "public.carts": SMALL, "shop.invoices": SMALL}, 64 << 20, columns, rules)


@pytest.mark.parametrize(("sql", "verdicts"), CORPUS, ids=[sql[:60] for sql, _verdicts in CORPUS])
def test_a_statement_is_judged_by_what_it_does_to_what_is_in_use(sql, verdicts):
    assert {verdict for verdict, _reason in judge_statement(sql, in_use())} == verdicts


def test_what_was_just_created_is_in_nobodys_use():
    lines = ["CREATE TABLE wishes (id text)", "CREATE INDEX i ON wishes (id)", "ALTER TABLE wishes ADD COLUMN a text NOT NULL", "DROP TABLE wishes"]
    assert judge({"m.sql": lines}, in_use()) == ("expand", [])


def test_a_table_that_is_there_already_is_not_created():
    lines = ["CREATE TABLE IF NOT EXISTS orders (id text)", "ALTER TABLE orders DROP COLUMN note"]
    assert judge({"m.sql": lines}, in_use())[0] == CONTRACT


def test_without_a_database_every_table_counts_as_large():
    assert judge({"m.sql": ["CREATE INDEX i ON carts (a)"]}, Tables())[0] == HEAVY


def test_the_worst_comes_first_and_names_file_statement_and_reason():
    verdict, found = judge({"1.sql": ["CREATE INDEX i ON orders (a)"], "2.sql": ["DROP TABLE orders"]}, in_use())
    assert verdict == CONTRACT and [finding.verdict for finding in found] == [CONTRACT, HEAVY]
    assert str(found[0]) == "2.sql: DROP TABLE orders (table public.orders is gone)"


def test_nothing_pending_is_nothing():
    assert judge({}, in_use()) == ("none", [])


SCRIPT = """
import { Migration } from "@mikro-orm/migrations";
// this.addSql(`drop table "a"`)
export class Migration2 extends Migration {
  override async up(): Promise<void> {
    this.addSql(`alter table if exists "a" add column "b" text null default '${value}';`);
    this.addSql('create index if not exists "i" on "a" (b); drop table \\'zz\\'');
    console.log("the table is down ( for a while");
    await knex.schema.dropTable('q');
  }
  override async down(): Promise<void> {
    this.addSql(`drop table "a"`);
  }
}
"""


def test_a_scripts_statements_are_those_of_its_way_up():
    assert statements("migrations/2.ts", SCRIPT) == [
        'alter table if exists "a" add column "b" text null default \'anchorage_some_name\'',
        'create index if not exists "i" on "a" (b)',
        "drop table 'zz'",
        "dropTable(…)",
    ]
    assert judge_statement("dropTable(…)", Tables()) == [(CONTRACT, "a call that takes away or renames")]


@pytest.mark.parametrize(
    "code",
    [
        'q(`\n -- away with it\n ALTER TABLE "orders" DROP COLUMN note`)',
        'q(`/* c */ DROP TABLE "orders"`)',
        'q("BEGIN; DROP TABLE \\"orders\\"; COMMIT")',
        """q("ALTER TABLE orders " + 'DROP COLUMN note')""",
        'q("ALTER TABLE " + this.table + " DROP COLUMN note")',
        'q(`ALTER TABLE "${schema}"."orders" DROP COLUMN note`)',
        "q(`DROP TABLE ${t}`)",
        "knex.schema.dropTableIfExists('orders')",
        "await queryRunner.renameColumn('orders', 'a', 'b')",
    ],
)
def test_what_a_script_takes_away_is_found_however_it_is_written(code):
    lines = statements("migrations/1.ts", f"export async function up(q) {{ {code} }}\nexport async function down() {{}}")
    assert judge({"1.ts": lines}, in_use())[0] == CONTRACT, lines


def test_what_a_script_builds_otherwise_is_not_held_against_it():
    assert statements("migrations/1.ts", "up() { queryRunner.dropIndex('a'); queryRunner.dropForeignKey('b'); console.log('gone') }") == []


def test_values_are_not_printed():
    _verdict, (found,) = judge({"1.sql": ["UPDATE orders SET note = 'sesame'"]}, in_use())
    assert "sesame" not in str(found) and found.statement == "UPDATE orders SET note = '…'"


def test_a_script_whose_way_down_comes_first_is_read_wholly():
    assert statements("migrations/3.js", "exports.down = () => {};\nexports.up = (k) => k.raw('drop table a');") == ["drop table a"]


def test_sql_is_split_at_its_own_semicolons():
    text = "select 'a;b', $x$ c; d $x$; -- e;\n/* f; */ select \"g;h\", E'i\\';j';\n;\n"
    assert split(text) == ["select 'a;b', $x$ c; d $x$", "select \"g;h\", E'i\\';j'"]


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("prisma/migrations/1/migration.sql", True),
        ("src/modules/brand/migrations/Migration1.js", True),
        ("src/modules/brand/migrations/Migration1.d.ts", False),
        ("src/modules/brand/migrations/.snapshot-brand.json", False),
        ("src/modules/brand/service.js", False),
        ("db/1.down.sql", False),
    ],
)
def test_a_migration_is_known_by_its_name(path, good):
    assert is_migration(path) is good


def test_pending_is_what_no_release_brought_that_the_database_has_seen():
    new = {"migrations/1.js": ["a"], "migrations/2.js": ["b", "c"], "migrations/3.js": []}
    assert pending(new, [{"migrations/1.ts": ["a"]}, {"migrations/2.js": ["b"]}]) == {"migrations/2.js": ["c"], "migrations/3.js": []}
    assert pending(new, [new]) == {}
