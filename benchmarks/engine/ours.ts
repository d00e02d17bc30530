/**
 * Our own engine, as this library's users load it.
 *
 * All that is assumed of the library stands here: `load(folder, { engine, threads })` among the exports
 * of `mod.ts`, which gives an `EngineModel`.
 * @module
 */
import type { EngineModel } from "../../src/engine/model.ts";
import type { Engine, EngineConfig } from "./adapters/engine.ts";
import { engineOfSteps, likeliest } from "./adapters/steps.ts";

/** What `mod.ts` is expected to export. */
type Load = (
  folder: string,
  options: { engine: "sparse"; threads: number },
) => Promise<EngineModel>;

/**
 * Loads a compiled model. A step is `run` and the argmax over the logits that it gives: as `generate` does,
 * it says that only the largest matters.
 */
export async function open({ model: folder, threads }: EngineConfig): Promise<Engine> {
  const { VERSION, load } = await import("../../mod.ts") as unknown as {
    VERSION: string;
    load?: Load;
  };
  if (!load) throw new Error("mod.ts exports no `load` yet");
  const model = await load(folder, { engine: "sparse", threads });
  const begin = () => {
    const sequence = model.open();
    return {
      run: async (tokens: readonly number[]) =>
        likeliest(await sequence.run(tokens, { within: 0 })),
      mark() {
        const { length } = sequence;
        return () => sequence.truncate(length);
      },
      close: () => sequence.close(),
    };
  };
  const product = `Espalier ${VERSION}, ${model.info.device}`;
  return {
    ...engineOfSteps(product, begin, () => model.close()),
    tokenBytes: model.info.tokenBytes ?? model.info.weightBytes,
  };
}
