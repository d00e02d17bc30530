import { afterAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { changeConfig } from "../../src/checkpoint/config_text.ts";
import { thrownBy, Workshop } from "./support.ts";

const workshop = new Workshop();
afterAll(() => workshop.remove());

test("a config that is nested too deeply to be written is refused, whatever the runtime's stack holds", () => {
  const path = join(workshop.folder(), "config.json");
  const levels = 20_000;
  writeFileSync(path, `{"a":${"[".repeat(levels)}${"]".repeat(levels)}}`);
  // A runtime may refuse it where it is read: that is an error of ours as well.
  const error = thrownBy(() => changeConfig(path, (config) => config));
  expect(error.code).toBe("CONFIG_INVALID");
  expect(error.message).toContain(path);
});
