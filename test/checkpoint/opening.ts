/** Opening checkpoints, and how that is refused. */
import { expect } from "bun:test";
import { OpenModel } from "../../src/api/shared.ts";
import type { EspalierError } from "../../src/errors.ts";
import { thrownBy } from "./support.ts";

type ErrorClass = new (message: string) => EspalierError;

/** Opens a model as every command does. */
export function open(folder: string): void {
  new OpenModel(folder).checkpoint.close();
}

/** Checks that a folder is refused with an error of one class whose one line says all of this. */
export function refused(folder: string, kind: ErrorClass, ...parts: string[]): string {
  const error = thrownBy(() => open(folder));
  expect(error).toBeInstanceOf(kind);
  for (const part of parts) expect(error.message).toContain(part);
  expect(error.message).not.toContain("\n");
  return error.message;
}
