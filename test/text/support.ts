/** What the tests of text and generation share. @module */
import process from "node:process";

/** The folder of a larger model, where the machine has one. */
export const LARGE_MODEL = process.env.ESPALIER_TEST_MODEL || undefined;
