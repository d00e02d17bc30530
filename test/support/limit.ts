/** How long tests may take. @module */

/**
 * The limit in milliseconds for a test or hook that names none, in every runtime; `bunfig.toml` says the same. Bun's
 * own is 5 s, too short for tests that load models; beside another runtime's tests, on two cores, the longest took 88 s.
 */
export const TEST_TIMEOUT_MS = 240_000;
