/** Results of the released DLP code; `test/fixtures/oracle/README.md` tells how they were made. @module */
import { readFileSync } from "node:fs";
import { fromRoot } from "./paths.ts";

/** One run of the released code. */
export interface OracleRun {
  method: string;
  allocation: string;
  sparsity: number;
  pattern: string;
  achieved?: number;
  ppl: number;
  /** `[block][linear]` */
  zeros?: number[][];
  /** By block and linear. */
  masks?: Record<string, Record<string, { sha256: string; bits?: string }>>;
  /** What is special about it. */
  note?: string;
}

/** A file of results. */
export interface Oracle {
  about: { blocks: number; linears: string[]; shapes: [number, number][] };
  calibration: { starts: number[]; textTokens: number; tokens: number[][] };
  evaluation: { tokens: number[][] };
  dense: { ppl: number; nll: number[] };
  importance: { scoreMean: number[]; scoreMedian: number[]; outlierPercent: number[] };
  densities: Record<"dlp-mean" | "dlp-median" | "owl", Record<string, number[]>>;
  pruned: OracleRun[];
}

/** Reads the results for a model. */
export function readOracle(name: "tiny" | "smollm2-135m"): Oracle {
  return JSON.parse(readFileSync(fromRoot(`test/fixtures/oracle/${name}.json`), "utf8"));
}
