/**
 * What is read of a compiled model's cache for ONNX Runtime, and refused.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readDecoderFile } from "../../src/engine/ort/decoder_file.ts";
import { TensorProto_DataType as DataType } from "../../src/onnx/generated/onnx_pb.ts";
import { thrownBy } from "../checkpoint/support.ts";
import { CompileWorkshop, sourceOf } from "../compile/support.ts";
import { Editor } from "./sparse/graph_editor.ts";
import { changedGraph, type Files, filesOf } from "./sparse/support.ts";

const workshop = new CompileWorkshop();
afterAll(() => workshop.remove());

let folder: string;
let files: Files;
beforeAll(async () => {
  folder = (await workshop.compile(sourceOf("lfm2"), { values: "f32" })).output;
  files = filesOf(folder);
});

function setDim(e: Editor, name: string, at: number, value: bigint | string): void {
  e.typeOf(name).shape!.dim[at].value = typeof value === "bigint"
    ? { case: "dimValue", value }
    : { case: "dimParam", value };
}

test("the cache of a model that convolves is keys and values, and what was read last", () => {
  const { cache, states } = readDecoderFile(folder);
  expect(cache).toEqual(["key", "value"].map((part) => ({
    past: `past_key_values.1.${part}`,
    present: `present.1.${part}`,
    heads: 2,
    headDim: 16,
  })));
  expect(states).toEqual([0, 2].map((layer) => ({
    past: `past_conv.${layer}`,
    present: `present_conv.${layer}`,
    dims: [1, 64, 3],
  })));
});

describe("a cache is refused", () => {
  function refuses(title: string, change: (e: Editor) => void, part: string): void {
    test(title, () => {
      const changed = workshop.fresh("changed");
      cpSync(folder, changed, { recursive: true });
      const bytes = changedGraph(files, (graph) => change(new Editor(graph)));
      writeFileSync(join(changed, "onnx", "model.onnx"), bytes);
      const { code, message } = thrownBy(() => readDecoderFile(changed));
      expect({ code, message }).toMatchObject({ code: "ONNX_INVALID" });
      expect(message).toContain(part);
    });
  }

  refuses("whose values have other heads than its keys", (e) => {
    setDim(e, "past_key_values.1.value", 1, 3n);
  }, '"past_key_values.1.value" does not fit');
  refuses("that a convolution does not give again", (e) => {
    e.graph.output = e.graph.output.filter(({ name }) => name !== "present_conv.2");
  }, '"past_conv.2" does not fit');
  refuses("of a convolution with another type", (e) => {
    e.typeOf("past_conv.0").elemType = DataType.FLOAT16;
  }, '"past_conv.0" is not float32 of three dimensions');
  refuses("of a convolution with other dimensions", (e) => {
    e.typeOf("past_conv.0").shape!.dim.pop();
  }, '"past_conv.0" is not float32 of three dimensions');
  refuses("of a convolution whose channels have a name", (e) => {
    setDim(e, "past_conv.0", 1, "channels");
  }, "channels");
  // Room is made for what is read: a file of some kilobytes must not ask for gigabytes.
  refuses("of a convolution that is larger than its kernels can be", (e) => {
    setDim(e, "past_conv.0", 1, 1n << 24n);
    setDim(e, "past_conv.0", 2, 1n << 24n);
  }, "more than they can have weights");
  refuses("of a convolution of more channels than any model has", (e) => {
    setDim(e, "past_conv.0", 1, 1n << 40n);
  }, "channels");
});
