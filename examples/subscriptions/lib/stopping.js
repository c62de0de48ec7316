/** A signal that is raised when the process is asked to stop: whoever waits, waits no longer. */
export function stopping() {
  const controller = new AbortController()
  for (const name of ['SIGTERM', 'SIGINT']) process.on(name, () => controller.abort())
  return controller.signal
}

/** Wait, or stop waiting. */
export function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, milliseconds)
    signal.addEventListener('abort', done)
  })
}
