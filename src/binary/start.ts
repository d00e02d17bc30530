/**
 * What runs in a binary that `bundle --target binary` made.
 * @module
 */
import { basename } from "node:path";
import process from "node:process";
import { nameProgram } from "../cli/help.ts";
import { carryModel } from "../cli/own_model.ts";
import { runProgram } from "../cli/program.ts";
import { carryAsset } from "../platform/assets.ts";
import { pathWord } from "../platform/shell.ts";
import { binaryProgram } from "./commands.ts";
import { embeddedBytes } from "./embedded.ts";
import { type BinaryModel, carriedModel } from "./model.ts";

/**
 * Runs the program, and ends the process.
 *
 * @param model The model that it carries.
 * @param assets Where Bun put files that modules read, by the ends of their addresses.
 */
export function startBinary(
  model: BinaryModel,
  assets: Readonly<Record<string, string>>,
): Promise<never> {
  for (const [name, path] of Object.entries(assets)) carryAsset(name, () => embeddedBytes(path));
  carryModel(carriedModel(model));
  nameProgram(pathWord(`./${basename(process.execPath)}`));
  return runProgram(binaryProgram(model.name));
}
