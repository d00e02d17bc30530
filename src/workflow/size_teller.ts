/**
 * The compiler's knowledge of sizes and roundings, for `prune --fit`.
 * @module
 */
import { compileSchema } from "../../compile/options.ts";
import { int4Columns } from "../../compile/packed/int4.ts";
import { narrow, widen } from "../../compile/packed/quantize.ts";
import { CompiledSizes } from "../../compile/predict.ts";
import type { Storing } from "../../compile/storing.ts";
import type { SizeTeller, StoreChoice } from "../api/compiled_sizes.ts";
import type { OpenModel } from "../api/shared.ts";

/** Value types that a fit tries: float32 takes twice the bytes of float16 and gains nothing. */
const TRIED = compileSchema.shape.values.unwrap().options.filter((values) => values !== "f32");

/** How embedding and head are stored; first where it costs least. */
const HEADS: Readonly<Record<string, readonly string[]>> = { int4: ["int8", "int4"] };

/** Tells the sizes of a checkpoint. */
export function sizeTeller(opened: OpenModel): SizeTeller {
  const sizes = new CompiledSizes(opened);
  return {
    choices: TRIED.flatMap((values) =>
      (HEADS[values] ?? [values]).map((head) => ({ values, head }))
    ),
    bytes: (kept, choice) => sizes.bytes(kept, storing(choice)),
    linearBytes: (kept, choice) => sizes.linearBytes(kept, storing(choice)),
    round: (matrix, choice) => {
      const { values: type, group: asked } = storing(choice);
      // For int4 what is asked for are kept weights; columns are what shares a scale.
      const group = type === "int4" ? int4Columns(matrix, asked) : asked;
      matrix.values.set(widen(narrow(matrix, { type, group }), matrix));
    },
  };
}

function storing({ values, head, group }: StoreChoice): Storing {
  const type = values as Storing["values"];
  return { format: "auto", values: type, group, head: (head ?? values) as Storing["head"] };
}
