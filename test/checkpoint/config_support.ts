/** Configs of models, changed, and what must come of them. @module */
import { expect } from "bun:test";
import { describe as describeModel } from "../../src/checkpoint/architectures/mod.ts";
import { thrownBy } from "./support.ts";

/** What a `config.json` holds. */
export type Config = Record<string, unknown>;

/** The config without some of its fields. */
export function without(config: Config, ...fields: string[]): Config {
  return Object.fromEntries(Object.entries(config).filter(([name]) => !fields.includes(name)));
}

/** Expects that a config is refused, by an error that names all this. */
export function refused(config: Config, ...parts: string[]): void {
  const error = thrownBy(() => describeModel(config));
  expect(error).toMatchObject({ code: "CONFIG_INVALID" });
  for (const part of parts) expect(error.message).toContain(part);
}
