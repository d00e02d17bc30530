/**
 * A node as lowering reads it: inputs by what they mean, attributes by type, errors that name it.
 *
 * It notes what was read. An input or attribute that nobody asked for may change what the node
 * computes, so a node with one left over is refused.
 * @module
 */
import { quote } from "../../../checks.ts";
import { OnnxError, UnsupportedOperatorError } from "../../../errors.ts";
import { numbersOf } from "../../../onnx/constants.ts";
import {
  type AttributeProto,
  AttributeProto_AttributeType as AttributeType,
  type NodeProto,
} from "../../../onnx/generated/onnx_pb.ts";
import type { Meaning, MeaningOf } from "./meaning.ts";

/** A node, and what its inputs mean. */
export class NodeView {
  readonly #inputsRead = new Set<number>();
  readonly #attributesRead = new Set<string>();

  /**
   * @param node The node.
   * @param meanings Those of all values that are made before it.
   * @param path The model's file, for messages.
   */
  constructor(
    readonly node: NodeProto,
    readonly meanings: ReadonlyMap<string, Meaning>,
    readonly path: string,
  ) {}

  /** Its operator with its domain, where that is not ONNX's own, e.g. `com.microsoft.Gelu`. */
  get operator(): string {
    const { domain, opType } = this.node;
    return domain === "" || domain === "ai.onnx" ? opType : `${domain}.${opType}`;
  }

  /** Whether it has an input at that place. */
  has(place: number): boolean {
    return (this.node.input[place] ?? "") !== "";
  }

  /** What an input means. */
  meaning(place: number): Meaning {
    this.#inputsRead.add(place);
    if (!this.has(place)) throw this.damaged(`lacks its input ${place}`);
    const name = this.node.input[place];
    const meaning = this.meanings.get(name);
    if (!meaning) throw this.unsupported(`reads ${quote(name)}, which the engine does not compute`);
    return meaning;
  }

  /** Both inputs of a node that has two. */
  pair(): [Meaning, Meaning] {
    return [this.meaning(0), this.meaning(1)];
  }

  /** What an input means, which has to be of one kind. */
  input<K extends Meaning["kind"]>(place: number, kind: K): MeaningOf<K> {
    const meaning = this.meaning(place);
    if (meaning.kind === kind) return meaning as MeaningOf<K>;
    throw this.unsupported(
      `reads ${
        quote(this.node.input[place])
      }, which is of the kind "${meaning.kind}", as its input ` +
        `${place}; "${kind}" is understood there`,
    );
  }

  /** The numbers of an input that is a small constant; `most`: see {@linkcode numbersOf}. */
  numbers(place: number, kind: "integers" | "floats", most?: number): number[] {
    const { tensor } = this.input(place, "tensor");
    const numbers = numbersOf(tensor, kind, most);
    if (numbers) return numbers;
    throw this.unsupported(
      `reads ${
        quote(tensor.name)
      } as its input ${place}, where a few ${kind} in the graph are understood`,
    );
  }

  /** The number of an input that is a constant of one. */
  number(place: number, kind: "integers" | "floats"): number {
    const numbers = this.numbers(place, kind);
    if (numbers.length === 1) return numbers[0];
    throw this.unsupported(
      `reads ${numbers.length} numbers as its input ${place}; one is understood`,
    );
  }

  /** An INT attribute. */
  integer(name: string, fallback?: number): number {
    const attribute = this.#attribute(name, AttributeType.INT);
    const value = attribute ? Number(attribute.i) : fallback;
    if (value === undefined) throw this.damaged(`lacks its attribute ${name}`);
    if (!Number.isSafeInteger(value)) throw this.damaged(`has the ${name} ${attribute!.i}`);
    return value;
  }

  /** A FLOAT attribute, which is finite. */
  float(name: string, fallback?: number): number {
    const value = this.#attribute(name, AttributeType.FLOAT)?.f ?? fallback;
    if (value === undefined) throw this.damaged(`lacks its attribute ${name}`);
    if (!Number.isFinite(value)) throw this.damaged(`has the ${name} ${value}`);
    return value;
  }

  /** A STRING attribute. */
  text(name: string, fallback: string): string {
    const attribute = this.#attribute(name, AttributeType.STRING);
    return attribute ? new TextDecoder().decode(attribute.s) : fallback;
  }

  /** An INTS attribute, or nothing. */
  integers(name: string): number[] | undefined {
    return this.#attribute(name, AttributeType.INTS)?.ints.map(Number);
  }

  /** The axes of a reduction: an attribute in older operator sets, an input in newer ones. */
  axes(): number[] {
    return this.integers("axes") ?? (this.has(1) ? this.numbers(1, "integers") : []);
  }

  /** Checks that an INT attribute has the one value that the engine computes with. */
  expectInteger(name: string, value: number, ...others: number[]): void {
    const found = this.integer(name, value);
    if (found !== value && !others.includes(found)) {
      throw this.unsupported(`has the ${name} ${found}; ${value} is understood`);
    }
  }

  /** Checks that nothing of the node has been left unread. */
  finish(): void {
    const { input, attribute } = this.node;
    const other = input.findIndex((name, place) => name !== "" && !this.#inputsRead.has(place));
    if (other >= 0) throw this.unsupported(`has an input ${other}, ${quote(input[other])}`);
    for (const { name } of attribute) {
      if (!this.#attributesRead.has(name)) {
        throw this.unsupported(`has the attribute ${quote(name)}`);
      }
    }
  }

  /** The error for a node that is used in a way that no kernel computes. */
  unsupported(what: string): UnsupportedOperatorError {
    return new UnsupportedOperatorError(
      `${this.#place()} ${what}: the sparse engine cannot run that`,
    );
  }

  /** The error for a node that cannot be. */
  damaged(what: string): OnnxError {
    return new OnnxError(`${this.#place()} ${what}`);
  }

  #place(): string {
    const { name, output } = this.node;
    const operator = quote(this.operator).slice(1, -1);
    return `${this.path}: node ${quote(name || output[0] || "")} (${operator})`;
  }

  #attribute(name: string, type: AttributeType): AttributeProto | undefined {
    this.#attributesRead.add(name);
    const found = this.node.attribute.filter((attribute) => attribute.name === name);
    if (found.length > 1) throw this.damaged(`has its attribute ${name} twice`);
    if (found.length === 1 && (found[0].type !== type || found[0].refAttrName !== "")) {
      throw this.damaged(`has its attribute ${name} as another type than ${AttributeType[type]}`);
    }
    return found[0];
  }
}

/** Numbers of a shape for messages: a file may have any count of them. */
export function listed(numbers: readonly (number | undefined)[]): string {
  const shown = numbers.slice(0, 8).map((number) => number ?? "?");
  return `[${shown.join(", ")}${numbers.length > 8 ? ", …" : ""}]`;
}
