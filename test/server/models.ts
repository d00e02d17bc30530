/** The models that the tests of the server serve. @module */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { load } from "../../src/generate/load.ts";
import type { LoadOptions } from "../../src/generate/load_options.ts";
import type { Model } from "../../src/generate/model.ts";
import type { CompileWorkshop } from "../compile/support.ts";
import { fromRoot } from "../support/paths.ts";
import { TEMPLATE } from "./behaviour.ts";

/** Folders of compiled models. */
export interface Folders {
  /** The example. */
  readonly plain: string;
  /** The same, and a chat template. */
  readonly chat: string;
}

/** Compiles the example, and a copy of it that has a chat template. */
export async function makeFolders(workshop: CompileWorkshop): Promise<Folders> {
  const example = fromRoot("examples/tiny");
  const templated = workshop.fresh("templated");
  cpSync(example, templated, { recursive: true });
  const path = join(templated, "tokenizer_config.json");
  const config = JSON.parse(readFileSync(path, "utf8"));
  writeFileSync(path, JSON.stringify({ ...config, chat_template: TEMPLATE }));
  const { output: plain } = await workshop.compile(example, { values: "int8" });
  const { output: chat } = await workshop.compile(templated, { values: "int8" });
  return { plain, chat };
}

/** Loads both. */
export async function loadBoth(folders: Folders, options: LoadOptions = {}): Promise<Model[]> {
  const settings: LoadOptions = { threads: 1, keptSequences: 16, ...options };
  return [await load(folders.plain, settings), await load(folders.chat, settings)];
}
