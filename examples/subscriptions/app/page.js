import { plans, release } from '../lib/database.js'
import { database } from '../lib/web.js'

export const dynamic = 'force-dynamic'

export default async function Page() {
  const found = await plans(database)
  return (
    <main data-release={release}>
      <h1>Plans</h1>
      <ul>
        {found.map((plan) => (
          <li key={plan.slug}>
            {plan.name}: {(plan.priceCents / 100).toFixed(2)} for {plan.days} days
          </li>
        ))}
      </ul>
    </main>
  )
}
