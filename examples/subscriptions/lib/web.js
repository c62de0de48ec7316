import { connect } from './database.js'

// One pool for all routes, which are bundled apart from each other.
export const database = (globalThis.database ??= connect('web'))
