import { plans } from '../../../lib/database.js'
import { database } from '../../../lib/web.js'

export const dynamic = 'force-dynamic'

export async function GET() {
  return Response.json({ plans: await plans(database) })
}
