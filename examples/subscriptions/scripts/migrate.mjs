// The gate of a release: the committed migrations, then the plan that the site cannot do without. Twice is as good as once.
import { connect } from '../lib/database.js'
import { node } from './run.mjs'

const plan = { slug: 'monthly', name: 'Club, monthly', priceCents: 900, days: 30 }
const database = connect('migrate')

// A migration that did not get a lock in time has changed nothing. But for Prisma it has failed, and no other is let in until somebody says otherwise.
async function admitThoseThatOnlyWaited() {
  const [{ known }] = await database.$queryRaw`SELECT to_regclass('_prisma_migrations') IS NOT NULL AS known`
  if (!known) return
  const count = await database.$executeRaw`
    UPDATE _prisma_migrations SET rolled_back_at = now()
    WHERE finished_at IS NULL AND rolled_back_at IS NULL AND logs LIKE '%canceling statement due to lock timeout%'`
  if (count) console.log(`migrate: ${count} did not get a lock the last time`)
}

try {
  await admitThoseThatOnlyWaited()
  process.exitCode = await node('node_modules/prisma/build/index.js', 'migrate', 'deploy')
  if (!process.exitCode) {
    await database.subscriptionPlan.upsert({ where: { slug: plan.slug }, create: plan, update: {} })
    console.log(`seed: ${await database.subscriptionPlan.count()} plans`)
  }
} catch (error) {
  console.error(`migrate: ${error.message}`)
  process.exitCode = 1
} finally {
  await database.$disconnect()
}
