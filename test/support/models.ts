/** Opening models in tests. @module */
import { buildGraph, decoderOf } from "../../src/checkpoint/architectures/mod.ts";
import type { DecoderSpec } from "../../src/checkpoint/architectures/spec.ts";
import { Checkpoint } from "../../src/checkpoint/checkpoint.ts";
import { type Backend, openBackend } from "../../src/engine/ort/backend.ts";
import { hasNode } from "../../src/engine/ort/node_module.ts";
import { windowLogits } from "../../src/engine/ort/head.ts";
import { StagedModel } from "../../src/engine/ort/staged.ts";
import { fromRoot } from "./paths.ts";

/** The fastest backend that tests can count on here. */
export const FAST = hasNode() ? "node" : "wasm";

/** A checkpoint, staged. */
export interface Loaded {
  readonly checkpoint: Checkpoint;
  readonly spec: DecoderSpec;
  readonly model: StagedModel;
  close(): Promise<void>;
}

/**
 * Opens a checkpoint for tests.
 *
 * @param folder Path from the root of the project, or absolute.
 * @param change Changes the description before the graph is built.
 */
export async function load(
  folder: string,
  backend: "node" | "wasm" | Backend,
  length = 128,
  change: (spec: DecoderSpec) => DecoderSpec = (spec) => spec,
): Promise<Loaded> {
  const checkpoint = Checkpoint.open(folder.startsWith("/") ? folder : fromRoot(folder));
  const spec = change(decoderOf(checkpoint));
  const opened = typeof backend === "string" ? await openBackend(backend) : backend;
  const model = new StagedModel(buildGraph(checkpoint, spec, length), checkpoint, opened);
  return {
    checkpoint,
    spec,
    model,
    close: async () => {
      await model.close();
      checkpoint.close();
    },
  };
}

/** The logits of every position of one window, `[length, vocabulary]`. */
export function forward(model: StagedModel, tokens: readonly number[]): Promise<Float32Array> {
  return windowLogits(model, Int32Array.from(tokens));
}
