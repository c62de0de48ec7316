import { PrismaPg } from '@prisma/adapter-pg'
import prisma from '../generated/prisma/index.js'

export const release = process.env.RELEASE_ID ?? 'none'

/** A client with a pool of its own; nothing connects before the first query. */
export function connect(name) {
  const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL, application_name: name, max: 5, connectionTimeoutMillis: 5000 })
  return new prisma.PrismaClient({ adapter })
}

/** Say that a piece of work is done. Each release has a row of its own, since for a while two of them run. */
export async function beat(database, name) {
  const at = new Date()
  await database.heartbeat.upsert({ where: { name_release: { name, release } }, create: { name, release, at, work: 1 }, update: { at, work: { increment: 1 } } })
  await database.heartbeat.deleteMany({ where: { name, at: { lt: new Date(at - 86_400_000) } } })
}

export function plans(database) {
  return database.subscriptionPlan.findMany({ orderBy: { priceCents: 'asc' }, select: { slug: true, name: true, priceCents: true, days: true } })
}
