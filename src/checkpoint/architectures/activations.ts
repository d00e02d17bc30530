/**
 * Activations, by the names that configs have for them, and as nodes of a graph.
 * @module
 */
import { ConfigError } from "../../errors.ts";
import { type GraphBuilder, MICROSOFT } from "../../onnx/builder.ts";
import type { Activation } from "./spec.ts";

/** Those of MLPs without a gate. */
export const PLAIN: ReadonlyMap<string, Activation> = new Map<string, Activation>([
  ["gelu", "gelu"],
  // One function by three names.
  ["gelu_fast", "gelu_tanh"],
  ["gelu_new", "gelu_tanh"],
  ["gelu_pytorch_tanh", "gelu_tanh"],
  ["relu", "relu"],
]);

/**
 * The activation that a config names.
 *
 * @param known Those of its architecture.
 * @param field What the config calls it.
 * @throws {ConfigError} For an activation that the architecture does not have.
 */
export function activationOf(
  name: string,
  known: ReadonlyMap<string, Activation>,
  field = "hidden_act",
): Activation {
  const activation = known.get(name);
  if (activation) return activation;
  throw new ConfigError(
    `config.json: ${field} ${JSON.stringify(name)} is not supported (${
      [...known.keys()].join(", ")
    } ${known.size === 1 ? "is" : "are"})`,
  );
}

/** The activation of each element. */
export function activate(b: GraphBuilder, activation: Activation, value: string): string {
  return b.within("activation", () => {
    switch (activation) {
      case "relu":
        return b.node("Relu", [value]);
      case "relu_squared": {
        const positive = b.node("Relu", [value]);
        return b.node("Mul", [positive, positive]);
      }
      case "gelu":
        return b.node("Gelu", [value], { domain: MICROSOFT });
      case "gelu_tanh":
        return b.node("FastGelu", [value], { domain: MICROSOFT });
      case "silu":
        return b.node("Mul", [value, b.node("Sigmoid", [value])]);
    }
  });
}
