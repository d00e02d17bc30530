/**
 * Weights on their way into memory: an error for every rule of `docs/format.md` that a file breaks.
 * @module
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { encodeBitmap } from "../../../compile/packed/bitmap.ts";
import { encodeCsr } from "../../../compile/packed/csr.ts";
import { encodeNm } from "../../../compile/packed/nm.ts";
import type { PackedSlots } from "../../../compile/packed/slots.ts";
import type {
  PackedBitmap,
  PackedCsr,
  PackedNm,
  ValueOptions,
} from "../../../compile/packed/types.ts";
import { rejectionOf } from "../../checkpoint/support.ts";
import { Machine } from "./machine.ts";
import { Tensors } from "./tensors.ts";
import { ENCODERS, multiply, place } from "./weights_support.ts";

let machine: Machine;
beforeAll(async () => {
  machine = (await Machine.start("simd", 1))!;
});
afterAll(() => machine.stop());

describe("a file that breaks a rule of the format is refused:", () => {
  const [rows, columns] = [5, 32];
  const values = Float32Array.from(
    { length: rows * columns },
    (_, i) => i % 2 === 0 ? (i % 7) - 3.5 : 0,
  );
  const int8 = { type: "int8" } as const;
  const f32 = { type: "f32" } as const;
  const nm = (options: ValueOptions) => ENCODERS.nm(rows, columns, values, options) as PackedNm;
  const csr = (options: ValueOptions) => ENCODERS.csr(rows, columns, values, options) as PackedCsr;
  const bitmap = (options: ValueOptions) => {
    // 30 columns, so that there are bits behind the last.
    const cut = Float32Array.from({ length: 150 }, (_, i) => values[i + 2 * Math.floor(i / 30)]);
    return ENCODERS.bitmap(5, 30, cut, options) as PackedBitmap;
  };

  const slots = (options: ValueOptions, change: (packed: PackedSlots) => void) => {
    // Three windows a row group: one of two slots, one of none, one of four.
    const some = Float32Array.from({ length: 8 * 48 }, (_, i) => {
      const column = i % 48;
      return column < 16 ? (column % 2) * (column - 8) : column < 32 ? 0 : column;
    });
    const packed = ENCODERS.slots(8, 48, some, options) as PackedSlots;
    change(packed);
    return packed;
  };

  /** What changes in a packed matrix, or in what the graph says of it. */
  const damages: [string, () => PackedNm | PackedCsr | PackedBitmap | PackedSlots][] = [
    ["N:M, codes that do not ascend", () => {
      const packed = nm(int8);
      packed.codes.copyWithin(3, 0, 3);
      return packed;
    }],
    ["N:M, a code outside of its group", () => {
      const twelve = Float32Array.from({ length: 2 * 24 }, (_, i) => i % 12 === 11 ? 1 : 0);
      const matrix = { name: "w", rows: 2, columns: 24, values: twelve };
      const packed = encodeNm(matrix, { n: 1, m: 12 }, int8);
      packed.codes.fill(0xcc);
      return packed;
    }],
    ["N:M, bits after the last row", () => {
      const packed = nm(int8);
      packed.codes[2] |= 0xf0;
      return packed;
    }],
    ["N:M, NaN", () => {
      const packed = nm(f32);
      packed.values.data[7] = NaN;
      return packed;
    }],
    ["N:M, infinity in float16", () => {
      const packed = nm({ type: "f16" });
      packed.values.data[7] = 0x7c00;
      return packed;
    }],
    ["CSR, a gap of 0", () => {
      const packed = csr(int8);
      packed.gaps[3] = 0;
      return packed;
    }],
    ["CSR, an entry outside of its row", () => {
      const packed = csr(int8);
      packed.gaps[3] += 40;
      return packed;
    }],
    ["CSR, row pointers that do not begin at 0", () => {
      const packed = csr(int8);
      packed.rowPointers[0] = 1;
      return packed;
    }],
    ["CSR, row pointers that fall", () => {
      const packed = csr(int8);
      packed.rowPointers[2] = 3;
      return packed;
    }],
    ["CSR, row pointers below 0", () => {
      const packed = csr(int8);
      packed.rowPointers[1] = -1;
      return packed;
    }],
    ["CSR, row pointers beyond the end", () => {
      const packed = csr(int8);
      packed.rowPointers[5] = 1000;
      return packed;
    }],
    ["CSR, entries after the last row", () => {
      const packed = csr(int8);
      packed.rowPointers[5]--;
      return packed;
    }],
    ["CSR, infinity", () => {
      const packed = csr(f32);
      packed.values.data[0] = Infinity;
      return packed;
    }],
    ["bitmap, more bits than values", () => {
      const packed = bitmap(int8);
      packed.bits[0] = 0xff;
      return packed;
    }],
    ["bitmap, fewer bits than values", () => {
      const packed = bitmap(int8);
      packed.bits[0] = 0;
      return packed;
    }],
    ["bitmap, bits after the last column", () => {
      const packed = bitmap(int8);
      packed.bits[3] |= 0x80;
      packed.bits[0] &= 0xfe;
      return packed;
    }],
    ["bitmap, a first value that is not 0", () => {
      const packed = bitmap(int8);
      packed.values.data[0] = 1;
      return packed;
    }],
    ["slots, more of them in a window than four", () =>
      slots(int8, ({ counts }) => {
        counts[0] = 5;
      })],
    ["slots, more of them than values", () =>
      slots(int8, ({ counts }) => {
        counts[0] = 0x42;
      })],
    ["slots, fewer of them than values", () =>
      slots(int8, ({ counts }) => {
        counts[3] = 0;
      })],
    ["slots, some behind the last window", () =>
      slots(int8, ({ counts }) => {
        counts[1] |= 0x10;
      })],
    ["slots, other bits than weights", () =>
      slots(int8, ({ masks }) => {
        masks[18] ^= 1;
      })],
    ["slots, fewer bits than windows", () => {
      const packed = slots(int8, () => {});
      return { ...packed, masks: packed.masks.slice(0, -8) };
    }],
    ["slots, more bits than windows", () => {
      const packed = slots(int8, () => {});
      return { ...packed, masks: Uint8Array.of(...packed.masks, ...packed.masks.slice(-8)) };
    }],
    ["slots, a first slot that is not 0", () =>
      slots(f32, ({ values }) => {
        values.data[15] = 1;
      })],
    ["slots, first bits that are not none", () =>
      slots(int8, ({ masks }) => {
        masks[7] = 1;
      })],
    ["slots, second bits that are not all", () =>
      slots(int8, ({ masks }) => {
        masks[8] = 0xfe;
      })],
    ["slots, NaN", () =>
      slots(f32, ({ values }) => {
        values.data[17] = NaN;
      })],
    ["slots, values that fill no slot", () => {
      const packed = slots(f32, () => {});
      const data = packed.values.data.slice(0, -1) as Float32Array;
      return { ...packed, values: { type: "f32", data } };
    }],
    ["int8, -128", () => {
      const packed = bitmap(int8);
      packed.values.data[5] = -128;
      return packed;
    }],
    ...[0, -1, NaN, Infinity, 2 ** 122].map((
      scale,
    ): [string, () => PackedNm] => [`int8, the scale ${scale}`, () => {
      const packed = nm(int8);
      if (packed.values.type === "int8") packed.values.scales[4] = scale;
      return packed;
    }]),
    ...[0, 0x8000, 0x7c00, 0xfc00, 0x7e01].map((
      bits,
    ): [string, () => PackedNm] => [`int4, the scale of the bits ${bits}`, () => {
      const packed = nm({ type: "int4", group: 32 });
      if (packed.values.type === "int4") packed.values.scales[4] = bits;
      return packed;
    }]),
    ["int4 as a bitmap, a first value that is not 0", () => {
      const packed = bitmap({ type: "int4", group: 32 });
      packed.values.data[0] = -1;
      return packed;
    }],
    ["int4 as a bitmap, more bits than values", () => {
      const packed = bitmap({ type: "int4", group: 32 });
      packed.bits[0] = 0xff;
      return packed;
    }],
    ["int4 as a bitmap, two bits less than values", () => {
      const packed = bitmap({ type: "int4", group: 32 });
      packed.bits[0] &= packed.bits[0] - 1;
      packed.bits[0] &= packed.bits[0] - 1;
      return packed;
    }],
    ["int8, the scale 0 of a group", () => {
      const packed = nm({ ...int8, group: 16 });
      if (packed.values.type === "int8") packed.values.scales[9] = 0;
      return packed;
    }],
  ];
  for (const [what, make] of damages) {
    test(what, async () => {
      const file = new Tensors();
      const error = await rejectionOf(place(machine, file, [file.packed(make())]));
      expect(error.code).toBe("PACKED_INVALID");
      expect(error.message.length).toBeGreaterThan(20);
    });
  }

  test("int4 with something after its last weight", async () => {
    const spoilt: [number, string][] = [[9, "csr"], [9, "dense"], [9, "nm"], [8, "bitmap"]];
    for (const [count, format] of spoilt) {
      // A bitmap has one value more than weights.
      const [rows, columns] = format === "nm" ? [count, 2] : [1, count];
      const values = new Float32Array(rows * columns).fill(1);
      const matrix = { name: "w", rows, columns, values };
      const options = { type: "int4", group: 32 } as const;
      const file = new Tensors();
      const ref = format === "dense"
        ? file.matrix({
          rows,
          columns,
          type: "int4",
          elements: Float64Array.from(values),
          scales: Float32Array.of(1),
          group: 32,
        }, false)
        : file.packed(
          format === "csr"
            ? encodeCsr(matrix, options)
            : format === "nm"
            ? encodeNm({ ...matrix, values: values.map((_, i) => i % 2) }, { n: 1, m: 2 }, options)
            : encodeBitmap(matrix, options),
        );
      expect((await place(machine, file, [ref])).length).toBe(1);
      const name = ref.kind === "dense" ? ref.values : ref.tensors.values;
      file.change(name, (bytes) => bytes[bytes.length - 1] |= 0x10);
      expect((await rejectionOf(place(machine, file, [ref]))).code).toBe("PACKED_INVALID");
    }
  });

  test("a dense int4 matrix with a scale of 0", async () => {
    const file = new Tensors();
    const elements = new Float64Array(20 * 32).fill(3);
    const scales = new Float32Array(20).fill(1);
    scales[17] = 0;
    const ref = file.matrix(
      { rows: 20, columns: 32, type: "int4", elements, scales, group: 32 },
      false,
    );
    expect((await rejectionOf(place(machine, file, [ref]))).code).toBe("PACKED_INVALID");
  });

  test("NaN in a dense matrix, and in a vector", async () => {
    for (const type of ["f32", "f16"] as const) {
      const elements = new Float64Array(64).fill(1);
      elements[40] = type === "f16" ? 65536 : NaN;
      const file = new Tensors();
      const ref = file.matrix({ rows: 4, columns: 16, type, elements }, false);
      expect((await rejectionOf(place(machine, file, [ref]))).code).toBe("PACKED_INVALID");
    }
    const file = new Tensors();
    const name = file.vector([1, 2, NaN]);
    const reader = await file.open();
    const error = await rejectionOf(machine.loader(reader, []).vector(name));
    expect(error.code).toBe("PACKED_INVALID");
    reader.close();
  });

  test("more columns than an index holds", async () => {
    const file = new Tensors();
    const values = new Float32Array(65540).fill(1);
    const ref = file.packed(encodeBitmap({ name: "w", rows: 1, columns: 65540, values }, f32));
    expect((await rejectionOf(place(machine, file, [ref]))).code).toBe("OPERATOR_UNSUPPORTED");
  });
});

test("a row of as many columns as an index holds is multiplied right", async () => {
  const columns = 65536;
  const values = new Float32Array(columns);
  for (const at of [0, 1, 32767, 32768, 65534, 65535]) values[at] = at % 5 + 1;
  const file = new Tensors();
  const refs = (["f32", "int8"] as const).map((type) =>
    file.packed(encodeCsr({ name: "w", rows: 1, columns, values }, { type }))
  );
  const x = Array.from({ length: columns }, (_, i) => (i % 3) - 1);
  const wanted = x.reduce((sum, value, i) => sum + value * values[i], 0);
  for (const matrix of await place(machine, file, refs)) {
    expect(Math.abs(multiply(machine, matrix, [x, x])[1][0] - wanted)).toBeLessThan(0.05);
  }
});
