import { release } from '../../../lib/database.js'

export const dynamic = 'force-dynamic'

export function GET() {
  return Response.json({ release, pid: process.pid })
}
