/**
 * The files of a model as `bundle` has laid them: it knows which there are, so nobody has to be asked.
 * @module
 */
import { FileReadError } from "../errors.ts";
import {
  checkedPath,
  checkSmall,
  contentFile,
  LARGEST_SMALL_FILE,
  type ModelSource,
} from "../engine/source.ts";

/**
 * A source of files that are read whole: large ones lie in parts.
 *
 * @param name For messages.
 * @param files Paths of all there are.
 * @param read Reads one. It is called anew after a failure.
 * @param fill Reads one into bytes that are as many as it has, where there is a way without garbage.
 */
export function bundledSource(
  name: string,
  files: readonly string[],
  read: (path: string) => Promise<Uint8Array<ArrayBuffer>>,
  fill?: (path: string, target: Uint8Array) => Promise<void>,
): ModelSource {
  const known = new Set(files);
  const placeOf = (path: string) => {
    const place = `${name}/${checkedPath(path)}`;
    if (known.has(path)) return place;
    throw new FileReadError(`${place} is no file of the bundle`);
  };
  const failed = (place: string, cause: unknown) => {
    const reason = cause instanceof Error ? cause.message : String(cause);
    return new FileReadError(`cannot read ${place}: ${reason}: deploy the bundle again`, { cause });
  };
  const bytesOf = async (path: string, largest: number) => {
    const place = placeOf(path);
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      bytes = await read(path);
    } catch (cause) {
      throw failed(place, cause);
    }
    checkSmall(place, bytes.length, largest);
    return bytes;
  };
  return {
    name,
    has: (path) => Promise.resolve(known.has(checkedPath(path))),
    read: (path, largest = LARGEST_SMALL_FILE) => bytesOf(path, largest),
    readInto: fill && (async (path, target) => {
      const place = placeOf(path);
      try {
        await fill(path, target);
      } catch (cause) {
        throw failed(place, cause);
      }
    }),
    open: async (path) => contentFile(await bytesOf(path, LARGEST_SMALL_FILE), `${name}/${path}`),
  };
}
