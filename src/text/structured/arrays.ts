/** Arrays: what may follow between their items. @module */
import { Between, COMMA, SPACE, type Values } from "./between.ts";
import { literalPlace } from "./literal.ts";
import type { Cell, Place, Steps } from "./place.ts";
import type { ArrayValue } from "./value.ts";

/** Places that are kept of one array whose items are distinct: there are as many as sets of items. */
const MOST_SETS = 4096;

/** The places of all arrays of a schema, each made once. */
export class Arrays {
  readonly #counted = new Map<ArrayValue, Map<number, Place>>();
  readonly #sets = new Map<ArrayValue, Map<string, Place>>();
  readonly #items = new Map<ArrayValue, ReturnType<Arrays["items"]>>();

  constructor(readonly values: Values) {}

  /** The place in an array after so many items. */
  at(array: ArrayValue, count: number): Place {
    if (array.distinct) return this.set(array, array.distinct.map((_, i) => i));
    // Where all items that can come are alike, their number does not matter.
    const counted = array.max === Infinity
      ? Math.min(count, Math.max(array.min, array.first.length, 1))
      : count;
    let places = this.#counted.get(array);
    if (!places) this.#counted.set(array, places = new Map());
    let place = places.get(counted);
    if (!place) places.set(counted, place = new ArrayPlace(this, array, counted));
    return place;
  }

  /** The place in an array whose items are distinct. @param left What has not come yet, by its place among all. */
  set(array: ArrayValue, left: readonly number[]): Place {
    let places = this.#sets.get(array);
    if (!places) this.#sets.set(array, places = new Map());
    const key = left.join();
    let place = places.get(key);
    if (!place) {
      if (places.size >= MOST_SETS) places.clear();
      places.set(key, place = new SetPlace(this, array, left));
    }
    return place;
  }

  /** The values of an array whose items are distinct: the place before each, and its first byte. */
  items(array: ArrayValue): readonly { readonly place: Place; readonly first: number }[] {
    let items = this.#items.get(array);
    if (!items) {
      items = array.distinct!.map((value) => ({
        place: literalPlace([value]),
        first: JSON.stringify(value).charCodeAt(0),
      }));
      this.#items.set(array, items);
    }
    return items;
  }
}

/** After the bracket, or after an item. */
class ArrayPlace extends Between {
  constructor(
    readonly arrays: Arrays,
    readonly array: ArrayValue,
    readonly count: number,
  ) {
    super();
  }

  override step(byte: number, below: Cell | undefined, steps: Steps): void {
    const { arrays, array, count } = this;
    const { first, rest, min, max } = array;
    if (byte === 0x5d && count >= min) return steps.end(below);
    const item = count < max ? first[count] ?? rest : undefined;
    if (!item) return;
    const after = steps.cell(arrays.at(array, count + 1), below);
    if (count === 0) arrays.values.begin(item, byte, after, steps);
    else if (byte === COMMA) steps.add(steps.cell(arrays.values.beforeValue(item), after));
  }
}

/** The same where items are distinct. */
class SetPlace extends Between {
  readonly #before: readonly Place[];

  /** @param left What has not come yet, by its place among all values, ascending. */
  constructor(
    readonly arrays: Arrays,
    readonly array: ArrayValue,
    readonly left: readonly number[],
  ) {
    super();
    this.#before = [new BeforeItem(this, false), new BeforeItem(this, true)];
  }

  override step(byte: number, below: Cell | undefined, steps: Steps): void {
    const { array, left } = this;
    const count = array.distinct!.length - left.length;
    if (byte === 0x5d && count >= array.min) return steps.end(below);
    if (count >= array.max || left.length === 0) return;
    if (count === 0) this.before(false).step(byte, below, steps);
    else if (byte === COMMA) steps.add(steps.cell(this.before(true), below));
  }

  /** The place before an item, where one space may come first. */
  before(mayHaveSpace: boolean): Place {
    return this.#before[mayHaveSpace ? 1 : 0];
  }
}

/** Before an item of an array whose items are distinct. */
class BeforeItem extends Between {
  override readonly weight: number;

  constructor(readonly set: SetPlace, readonly mayHaveSpace: boolean) {
    super();
    this.weight = Math.max(1, set.left.length);
  }

  override step(byte: number, below: Cell | undefined, steps: Steps): void {
    const { arrays, array, left } = this.set;
    if (byte === SPACE && this.mayHaveSpace) steps.add(steps.cell(this.set.before(false), below));
    for (const index of left) {
      const item = arrays.items(array)[index];
      if (item.first !== byte) continue;
      const rest = arrays.set(array, left.filter((other) => other !== index));
      item.place.step(byte, steps.cell(rest, below), steps);
    }
  }
}
