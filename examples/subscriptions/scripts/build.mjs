// The client is generated into the source, where the bundler and the scripts beside it find it; then the site is compiled.
import { node } from './run.mjs'

// A build asks no database. But without any address Prisma goes and fetches an engine that nobody needs here.
process.env.DATABASE_URL ??= 'postgresql://nobody@127.0.0.1/none'
process.exitCode = (await node('node_modules/prisma/build/index.js', 'generate', '--no-hints')) || (await node('node_modules/next/dist/bin/next', 'build'))
