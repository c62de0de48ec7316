import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Run a package's JavaScript file to its end and return its code; what this process is asked, it is asked too. */
export function node(...words) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, words, { cwd: root, stdio: 'inherit' })
    const pass = (name) => child.kill(name)
    for (const name of ['SIGTERM', 'SIGINT']) process.on(name, pass)
    child.on('exit', (code) => {
      for (const name of ['SIGTERM', 'SIGINT']) process.off(name, pass)
      resolve(code ?? 1)
    })
  })
}
