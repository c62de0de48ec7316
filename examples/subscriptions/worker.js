// Works in a loop until it is asked to stop. A piece of work is never cut in two.
import { beat, connect, release } from './lib/database.js'
import { sleep, stopping } from './lib/stopping.js'

const database = connect('worker')
const signal = stopping()
console.log(`worker: release ${release} starts`)

while (!signal.aborted) {
  try {
    await database.subscriptionPlan.count()
    await beat(database, 'worker')
  } catch (error) {
    console.error(`worker: ${error.code ?? error.name}`)
  }
  await sleep(2000, signal)
}

await database.$disconnect()
console.log('worker: stopped')
process.exit(0)
