// The gate of a release: the committed migrations, then the plan that the site cannot do without. Twice is as good as once.
import { connect } from '../lib/database.js'
import { node } from './run.mjs'

const plan = { name: 'Club, monthly', priceCents: 900, days: 30 }

const code = await node('node_modules/prisma/build/index.js', 'migrate', 'deploy')
if (code) process.exit(code)

const database = connect('migrate')
try {
  const slug = 'monthly'
  await database.subscriptionPlan.upsert({ where: { slug }, create: { slug, ...plan }, update: {} })
  console.log(`seed: ${await database.subscriptionPlan.count()} plans`)
} finally {
  await database.$disconnect()
}
