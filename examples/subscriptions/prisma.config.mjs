// Prisma's own connection, for `migrate deploy`. It is a dependency and not a development one, since the release migrates with it.
import { PrismaPg } from '@prisma/adapter-pg'
import { defineConfig } from 'prisma/config'

// The adapter cuts a migration at each semicolon, so one that fails would stay half done (and a function's body be cut in two). Sent as a whole it is
// one transaction, as with Prisma's native engine.
class Whole extends PrismaPg {
  async connect() {
    const connection = await super.connect()
    connection.executeScript = async (script) => {
      await connection.client.query(script).catch((error) => connection.onError(error))
    }
    return connection
  }
}

export default defineConfig({
  experimental: { adapter: true },
  engine: 'js',
  schema: 'prisma/schema.prisma',
  adapter: async () => new Whole({ connectionString: process.env.DATABASE_URL }),
})
