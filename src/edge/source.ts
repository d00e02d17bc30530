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
 */
export function bundledSource(
  name: string,
  files: readonly string[],
  read: (path: string) => Promise<Uint8Array<ArrayBuffer>>,
): ModelSource {
  const known = new Set(files);
  const bytesOf = async (path: string, largest: number) => {
    const place = `${name}/${checkedPath(path)}`;
    if (!known.has(path)) throw new FileReadError(`${place} is no file of the bundle`);
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      bytes = await read(path);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new FileReadError(`cannot read ${place}: ${reason}: deploy the bundle again`, {
        cause,
      });
    }
    checkSmall(place, bytes.length, largest);
    return bytes;
  };
  return {
    name,
    has: (path) => Promise.resolve(known.has(checkedPath(path))),
    read: (path, largest = LARGEST_SMALL_FILE) => bytesOf(path, largest),
    open: async (path) => contentFile(await bytesOf(path, LARGEST_SMALL_FILE), `${name}/${path}`),
  };
}
