/**
 * The native ONNX Runtime, where it is installed.
 * @module
 */
import type * as Ort from "onnxruntime-common";
import { BackendError, type EspalierError } from "../../errors.ts";
import { setForLibraries } from "../../platform/environment.ts";
import { denied, messageOf } from "../../platform/file_errors.ts";
import { hasPackage, requirePackage } from "../../platform/packages.ts";
import { isBinary } from "../../platform/runtime.ts";

/** What both packages of ONNX Runtime give. */
export type OrtModule = typeof Ort;

const PACKAGE = "onnxruntime-node";

/** Whether onnxruntime-node can be found from here. */
export function hasNode(): boolean {
  // In a binary it would be that of the folder which the user is in.
  return !isBinary() && hasPackage(PACKAGE);
}

/** Whether it can be found, and loads. */
export function loadsNode(): boolean {
  if (!hasNode()) return false;
  try {
    requireNode();
    return true;
  } catch {
    // Whoever asks for it by name is told why.
    return false;
  }
}

/**
 * Loads onnxruntime-node. `require`, not `import`: Deno fetches every npm package that an import names, and this one
 * has 290 MB that nobody asked for. `require` takes it from node_modules, or says that it is not there.
 *
 * @throws {BackendError} When it is not installed, or does not load.
 * @throws {PermissionMissingError} When Deno was not told to allow native libraries.
 */
export function requireNode(): OrtModule {
  if (isBinary()) {
    throw new BackendError("a program of one file has no native ONNX Runtime: take --device wasm");
  }
  // Since 1.30 the library reports its use to Microsoft from Linux, too, and leaves files of that in the
  // folder for temporary ones.
  setForLibraries("ORT_DISABLE_TELEMETRY", "1");
  try {
    return requirePackage(PACKAGE) as OrtModule;
  } catch (cause) {
    throw notLoaded(cause, hasPackage(PACKAGE));
  }
}

/** Why it does not load, as a user is told. */
export function notLoaded(cause: unknown, isInstalled: boolean): EspalierError {
  return denied(cause, PACKAGE) ?? new BackendError(
    isInstalled
      ? `${PACKAGE} is installed here and does not load (${
        messageOf(cause)
      }): use WebAssembly (wasm)`
      : `${PACKAGE} is not installed here: run \`npm install\` (or \`bun install\`), or use WebAssembly (wasm)`,
    { cause },
  );
}
