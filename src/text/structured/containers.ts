/** The values of a schema that have others in them, and the places of all of them. @module */
import { Arrays } from "./arrays.ts";
import { Between, SPACE, type Values } from "./between.ts";
import { ObjectForm } from "./objects.ts";
import type { Cell, Place, Steps } from "./place.ts";
import { type ObjectValue, plainOf, type Value } from "./value.ts";

/** The grammar of one schema: it makes each place once. */
export class Containers implements Values {
  readonly #arrays = new Arrays(this);
  readonly #objects = new Map<ObjectValue, ObjectForm>();
  readonly #values = new Map<Value, Place[]>();

  /** The place before a value, where one space may come first. */
  beforeValue(value: Value, mayHaveSpace = true): Place {
    let places = this.#values.get(value);
    if (!places) {
      places = [new BeforeValue(this, value, false), new BeforeValue(this, value, true)];
      this.#values.set(value, places);
    }
    return places[mayHaveSpace ? 1 : 0];
  }

  /** Takes the first byte of a value. */
  begin(value: Value, byte: number, below: Cell | undefined, steps: Steps): void {
    for (const plain of plainOf(value)) {
      if (plain.kind === "scalar") {
        plain.start.step(byte, below, steps);
      } else if (plain.kind === "array") {
        if (byte === 0x5b) steps.add(steps.cell(this.#arrays.at(plain, 0), below));
      } else if (byte === 0x7b) {
        steps.add(steps.cell(this.#object(plain).at("first", 0), below));
      }
    }
  }

  #object(object: ObjectValue): ObjectForm {
    let form = this.#objects.get(object);
    if (!form) this.#objects.set(object, form = new ObjectForm(this, object));
    return form;
  }
}

class BeforeValue extends Between {
  constructor(
    readonly containers: Containers,
    readonly value: Value,
    readonly mayHaveSpace: boolean,
  ) {
    super();
  }

  override step(byte: number, below: Cell | undefined, steps: Steps): void {
    if (byte === SPACE && this.mayHaveSpace) {
      steps.add(steps.cell(this.containers.beforeValue(this.value, false), below));
    }
    this.containers.begin(this.value, byte, below, steps);
  }
}
