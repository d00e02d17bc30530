/**
 * Tests of graphs that lowering refuses, once something in them is changed.
 * @module
 */
import { expect, test } from "bun:test";
import { thrownBy } from "../../checkpoint/support.ts";
import { Editor } from "./graph_editor.ts";
import { changedGraph, type Files, lowerBytes } from "./support.ts";

/** Changes a graph. */
export type Change = (e: Editor) => void;

/** Makes a test, with what messages must contain. */
type Refusal<Name extends string> = (
  title: string,
  model: Name,
  change: Change,
  ...parts: string[]
) => void;

/**
 * Tests that changed graphs are refused, with parts of the message.
 *
 * @param filesOf The files of a model, asked for when a test runs.
 */
export function refusals<Name extends string>(
  filesOf: (model: Name) => Files,
): { unsupported: Refusal<Name>; damaged: Refusal<Name> } {
  const refuses = (code: "OPERATOR_UNSUPPORTED" | "ONNX_INVALID"): Refusal<Name> =>
  (
    title,
    model,
    change,
    ...parts
  ) => {
    test(title, () => {
      const bytes = changedGraph(filesOf(model), (graph) => change(new Editor(graph)));
      const { code: found, message } = thrownBy(() => lowerBytes(bytes));
      expect({ found, message }).toMatchObject({ found: code });
      for (const part of parts) expect(message).toContain(part);
      expect(message.length).toBeLessThan(1000);
      expect(message.startsWith("model.onnx")).toBe(true);
    });
  };
  return { unsupported: refuses("OPERATOR_UNSUPPORTED"), damaged: refuses("ONNX_INVALID") };
}
