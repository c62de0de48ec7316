import { PrismaPg } from '@prisma/adapter-pg'
import prisma from '../generated/prisma/index.js'

export const release = process.env.RELEASE_ID ?? 'none'

/** A client with a pool of its own; nothing connects before the first query. */
export function connect(name) {
  const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL, application_name: name, max: 5, connectionTimeoutMillis: 5000 })
  return new prisma.PrismaClient({ adapter })
}

/** Say that a piece of work is done. */
export function beat(database, name) {
  const now = { at: new Date(), release }
  return database.heartbeat.upsert({ where: { name }, create: { name, work: 1, ...now }, update: { work: { increment: 1 }, ...now } })
}

export function plans(database) {
  return database.subscriptionPlan.findMany({ orderBy: { priceCents: 'asc' }, select: { slug: true, name: true, priceCents: true, days: true } })
}
