/**
 * Writing a safetensors file, a tensor at a time.
 * @module
 */
import { quote } from "../checks.ts";
import { FormatUnfitError } from "../errors.ts";
import { firstNotFinite, FLOAT_BYTES, type FloatType, narrowTo } from "../onnx/element_type.ts";
import { letEventsIn } from "../platform/events.ts";
import { PositionedFile } from "../platform/positioned_file.ts";

/** Elements that are converted at a time: the head of a large model has half a billion. */
const PIECE = 4 << 20;

/** A tensor to be written. */
export interface OutgoingTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** How its values are stored; as those of the others if not given. */
  readonly type?: FloatType;
  /** Its values, asked for when they are written. */
  read(): Float32Array;
}

/**
 * Writes a file of tensors.
 *
 * @param path The file to create.
 * @param tensors The tensors, in the order in which they will lie in the file.
 * @param usual How values are stored, rounded to nearest, of tensors without a type of their own.
 * @param onTensor Called after each tensor, with the number written.
 * @throws {FormatUnfitError} When the type cannot hold a value: it would become infinite.
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly OutgoingTensor[],
  usual: FloatType,
  onTensor: (done: number) => void = () => {},
): Promise<void> {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let end = 0;
  for (const { name, shape, type = usual } of tensors) {
    const length = shape.reduce((product, dim) => product * dim, 1) * FLOAT_BYTES[type];
    header[name] = { dtype: type.toUpperCase(), shape, data_offsets: [end, end += length] };
  }
  let text = JSON.stringify(header);
  // Spaces bring the data to a multiple of 8 bytes, as the format asks for.
  text += " ".repeat((8 - new TextEncoder().encode(text).length % 8) % 8);
  const bytes = new TextEncoder().encode(text);
  const prefix = new Uint8Array(8);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(bytes.length), true);

  const file = PositionedFile.open(path, "create");
  try {
    file.write(prefix, 0);
    file.write(bytes, 8);
    let position = 8 + bytes.length;
    for (const [i, tensor] of tensors.entries()) {
      const values = tensor.read();
      const { type = usual } = tensor;
      for (let first = 0; first < values.length; first += PIECE) {
        const piece = values.subarray(first, first + PIECE);
        const stored = narrowTo(piece, type);
        const at = firstNotFinite(stored, type);
        if (at >= 0) {
          throw new FormatUnfitError(
            `${quote(tensor.name)} has ${piece[at]} at element ${
              first + at
            }, which ${type} cannot hold: store it as ${type === "f16" ? "bf16 or f32" : "f32"}`,
          );
        }
        file.write(stored, position);
        position += stored.length;
      }
      onTensor(i + 1);
      // Lets Ctrl-C in: writing is all synchronous calls.
      await letEventsIn();
    }
  } finally {
    file.close();
  }
}
