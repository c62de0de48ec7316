// Asks Telegram for news by long polling: one request is open at any time, and no port. Telegram lets one poller in, so never start two.
import { beat, connect, plans, release } from './lib/database.js'
import { sleep, stopping } from './lib/stopping.js'

const api = process.env.TELEGRAM_API ?? 'https://api.telegram.org'
const token = process.env.TELEGRAM_BOT_TOKEN
const timeout = Number(process.env.TELEGRAM_POLL_SECONDS ?? 10)
const conflictSeconds = 3

if (!token) {
  console.error('bot: TELEGRAM_BOT_TOKEN is empty')
  process.exit(1)
}

const database = connect('bot')
const signal = stopping()

// The address holds the token, so it is in no message.
async function call(method, words, until) {
  const answer = await fetch(`${api}/bot${token}/${method}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'user-agent': `subscriptions-bot/${release}` },
    body: JSON.stringify(words),
    signal: until,
  })
  const body = await answer.json()
  if (!body.ok) throw Object.assign(new Error(`${body.error_code} ${body.description}`), { status: body.error_code })
  return body.result
}

async function answer({ message }) {
  if (message?.text !== '/start') return
  const lines = (await plans(database)).map((plan) => `${plan.name}: ${(plan.priceCents / 100).toFixed(2)} for ${plan.days} days`)
  await call('sendMessage', { chat_id: message.chat.id, text: lines.join('\n') }, AbortSignal.timeout(10_000))
}

console.log(`bot: release ${release} polls`)
let offset = 0
let confirmed = 0

while (!signal.aborted) {
  try {
    const limit = AbortSignal.timeout((timeout + 10) * 1000)
    const updates = await call('getUpdates', { offset, timeout, allowed_updates: ['message'] }, AbortSignal.any([signal, limit]))
    confirmed = offset
    for (const update of updates) {
      await answer(update)
      offset = update.update_id + 1
    }
    await beat(database, 'bot')
  } catch (error) {
    if (signal.aborted) break
    if (error.status === 409) console.error(`bot: conflict, another poller has this token: ${error.message}`)
    else console.error(`bot: ${error.status ? error.message : (error.cause?.code ?? error.code ?? error.name)}`)
    await sleep(conflictSeconds * 1000, signal)
  }
}

// What was answered must not be answered again by the next release.
if (offset > confirmed) await call('getUpdates', { offset, timeout: 0, limit: 1 }, AbortSignal.timeout(2000)).catch(() => {})
await database.$disconnect()
console.log('bot: stopped')
process.exit(0)
