/** Objects: their names, and what may follow between their parts. @module */
import { Between, COMMA, SPACE, type Values } from "./between.ts";
import type { Cell, Place, Steps } from "./place.ts";
import { BACKSLASH, BETWEEN, CHARACTERS, NEVER, QUOTE } from "./string.ts";
import type { ObjectValue, Value } from "./value.ts";

const COLON = 0x3a;
/** Places that are kept of names of one object whose names have forms. */
const MOST_NAMES = 4096;

/** The names of an object's properties, beginning by beginning; each ends with its quote. */
interface Names {
  readonly next: Map<number, Names>;
  /** The properties that are still possible, ascending. */
  readonly properties: number[];
}

const utf8 = new TextEncoder();

type ObjectPhase = "first" | "after" | "comma" | "key";

/** An object's places. */
export class ObjectForm {
  readonly names: Names = { next: new Map(), properties: [] };
  /** From each property on, the first that must come; their number where there is none. */
  readonly required: number[];
  readonly #places = new Map<string, Place>();
  readonly #keys = new Map<Names, Place[]>();
  readonly #others = new Map<Names | undefined, Place[]>();
  readonly #named: Place[] = [];
  readonly #names = new Map<string, NamePlace>();
  readonly #ids = new WeakMap<Place, number>();
  #nextId = 0;

  constructor(readonly values: Values, readonly object: ObjectValue) {
    const { properties, barred } = object;
    this.required = Array(properties.length + 1).fill(properties.length);
    for (let i = properties.length - 1; i >= 0; i--) {
      this.required[i] = properties[i].required ? i : this.required[i + 1];
    }
    properties.forEach(({ name }, i) => this.#name(name, [i]));
    for (const name of barred) this.#name(name, []);
  }

  /** Adds a name, with the properties that it is of. */
  #name(name: string, of: readonly number[]): void {
    let names = this.names;
    names.properties.push(...of);
    for (const byte of utf8.encode(JSON.stringify(name)).subarray(1)) {
      let next = names.next.get(byte);
      if (!next) names.next.set(byte, next = { next: new Map(), properties: [] });
      next.properties.push(...of);
      names = next;
    }
  }

  /** @param index The first property that may come. */
  at(phase: ObjectPhase, index: number): Place {
    const key = `${phase}${index}`;
    let place = this.#places.get(key);
    if (!place) this.#places.set(key, place = new ObjectPlace(this, phase, index));
    return place;
  }

  /** Whether there may be a name that no property has. */
  mayHaveOthers(index: number): boolean {
    const { others, named = [], properties } = this.object;
    return (others !== undefined || named.length > 0) &&
      this.required[index] === properties.length;
  }

  /** Within a name of one of some forms; undefined for those that it has not. */
  namePlace(forms: readonly (Place | undefined)[]): NamePlace {
    const key = forms.map((form) => {
      if (!form) return "";
      let id = this.#ids.get(form);
      if (id === undefined) this.#ids.set(form, id = this.#nextId++);
      return id;
    }).join();
    let place = this.#names.get(key);
    if (!place) {
      if (this.#names.size >= MOST_NAMES) this.#names.clear();
      this.#names.set(key, place = new NamePlace(this, forms));
    }
    return place;
  }

  /** After a name of a form. */
  namedColon(at: number): Place {
    const { named = [], properties } = this.object;
    return this.#named[at] ??= this.colon(named[at].value, properties.length);
  }

  /** Within a name of a property that may come. */
  key(names: Names, index: number): Place {
    return once(this.#keys, names, index, () => new KeyPlace(this, names, index));
  }

  /** Within a name of another one. `names`: what it could still be confused with. */
  otherKey(names: Names | undefined, state: number): Place {
    return once(this.#others, names, state, () => new OtherKeyPlace(this, names, state));
  }

  /** After a name. */
  colon(value: Value, next: number): ColonPlace {
    return new ColonPlace(this, value, next);
  }
}

function once<K>(map: Map<K, Place[]>, key: K, index: number, make: () => Place): Place {
  let places = map.get(key);
  if (!places) map.set(key, places = []);
  return places[index] ??= make();
}

class ObjectPlace extends Between {
  constructor(readonly form: ObjectForm, readonly phase: ObjectPhase, readonly index: number) {
    super();
  }

  override step(byte: number, below: Cell | undefined, steps: Steps): void {
    const { form, phase, index } = this;
    const count = form.object.properties.length;
    if (phase === "first" || phase === "after") {
      if (byte === 0x7d && form.required[index] === count) return steps.end(below);
      if (phase === "after") {
        const goesOn = index < count || form.mayHaveOthers(index);
        if (byte === COMMA && goesOn) steps.add(steps.cell(form.at("comma", index), below));
        return;
      }
    }
    if (phase === "comma" && byte === SPACE) {
      steps.add(steps.cell(form.at("key", index), below));
    } else if (byte === QUOTE) {
      if (index < count) steps.add(steps.cell(form.key(form.names, index), below));
      if (!form.mayHaveOthers(index)) return;
      const { others, named = [] } = form.object;
      if (others) steps.add(steps.cell(form.otherKey(form.names, BETWEEN), below));
      if (named.length > 0) form.namePlace(named.map(({ name }) => name)).step(byte, below, steps);
    }
  }
}

class KeyPlace extends Between {
  #colon: Place | undefined;

  constructor(readonly form: ObjectForm, readonly names: Names, readonly index: number) {
    super();
  }

  override step(byte: number, below: Cell | undefined, steps: Steps): void {
    const { form, index } = this;
    const next = this.names.next.get(byte);
    if (!next) return;
    const property = firstFrom(next.properties, index);
    if (property === undefined || property > form.required[index]) return;
    if (next.next.size === 0) {
      this.#colon ??= form.colon(form.object.properties[property].value, property + 1);
      steps.add(steps.cell(this.#colon, below));
    } else {
      steps.add(steps.cell(form.key(next, index), below));
    }
  }
}

/** The first of ascending numbers that is not below another. */
function firstFrom(numbers: readonly number[], least: number): number | undefined {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < least) low = middle + 1;
    else high = middle;
  }
  return numbers[low];
}

/** Within a name that has one of some forms, all of which are followed as one. */
class NamePlace extends Between {
  override readonly weight: number;
  readonly #next = new Map<number, NamePlace | number | undefined>();

  constructor(readonly form: ObjectForm, readonly forms: readonly (Place | undefined)[]) {
    super();
    this.weight = Math.max(...forms.map((form) => form?.weight ?? 1));
  }

  override step(byte: number, below: Cell | undefined, steps: Steps): void {
    if (!this.#next.has(byte)) this.#next.set(byte, this.#find(byte));
    const next = this.#next.get(byte);
    if (typeof next === "number") steps.add(steps.cell(this.form.namedColon(next), below));
    else if (next) steps.add(steps.cell(next, below));
  }

  /** What follows a byte: a place within the name, or the form that it has, of which there is one only. */
  #find(byte: number): NamePlace | number | undefined {
    let ended: number | undefined;
    const next = this.forms.map((form, i) => {
      let place: Place | undefined;
      form?.step(byte, undefined, {
        cell: (place, below) => ({ place, below }),
        add: (cell) => place = cell.place,
        end: () => ended = i,
      });
      return place;
    });
    if (ended !== undefined) return ended;
    return next.some((place) => place) ? this.form.namePlace(next) : undefined;
  }
}

class OtherKeyPlace extends Between {
  #colon: Place | undefined;

  constructor(
    readonly form: ObjectForm,
    readonly names: Names | undefined,
    readonly state: number,
  ) {
    super();
  }

  override step(byte: number, below: Cell | undefined, steps: Steps): void {
    const { form, names, state } = this;
    if (byte === QUOTE && state === BETWEEN) {
      // One of the properties' names would have to have the property's form.
      if (names?.next.has(QUOTE)) return;
      const { others, properties } = form.object;
      this.#colon ??= form.colon(others!, properties.length);
      return steps.add(steps.cell(this.#colon, below));
    }
    // Without escapes a name has one spelling only.
    if (byte === BACKSLASH) return;
    const next = CHARACTERS[state * 256 + byte];
    if (next !== NEVER) steps.add(steps.cell(form.otherKey(names?.next.get(byte), next), below));
  }
}

class ColonPlace extends Between {
  constructor(readonly form: ObjectForm, readonly value: Value, readonly next: number) {
    super();
  }

  override step(byte: number, below: Cell | undefined, steps: Steps): void {
    if (byte !== COLON) return;
    const { form, value, next } = this;
    const after = steps.cell(form.at("after", next), below);
    steps.add(steps.cell(form.values.beforeValue(value), after));
  }
}
