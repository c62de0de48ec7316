export default {
  poweredByHeader: false,
  // What is rendered is kept in memory: a release cannot be written to.
  experimental: { isrFlushToDisk: false },
}
