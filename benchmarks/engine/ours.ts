/**
 * Our own engine, as this library's users load it.
 *
 * All that is assumed of the library stands here: `load(folder, { engine, threads })` among the exports
 * of `mod.ts`, which gives an `EngineModel`.
 * @module
 */
import type { EngineModel } from "../../src/engine/model.ts";
import type { Engine, EngineConfig } from "./adapters/engine.ts";
import { engineOfOurs } from "./adapters/steps.ts";

/** What `mod.ts` is expected to export. */
type Load = (
  folder: string,
  options: { engine: "sparse"; threads: number },
) => Promise<EngineModel>;

/** Loads a compiled model. */
export async function open({ model: folder, threads }: EngineConfig): Promise<Engine> {
  const { VERSION, load } = await import("../../mod.ts") as unknown as {
    VERSION: string;
    load?: Load;
  };
  if (!load) throw new Error("mod.ts exports no `load` yet");
  return engineOfOurs(`Espalier ${VERSION}`, await load(folder, { engine: "sparse", threads }));
}
