import { release } from '../../../lib/database.js'
import { database } from '../../../lib/web.js'

export const dynamic = 'force-dynamic'

export async function GET() {
  try {
    await database.$queryRaw`SELECT 1`
    return Response.json({ status: 'ok', release })
  } catch (error) {
    console.error(`health: ${error.code ?? error.name}`)
    return Response.json({ status: 'no database', release }, { status: 503 })
  }
}
